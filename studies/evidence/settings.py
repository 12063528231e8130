"""The chosen settings: which configuration of each method the comparison takes, decided by the tuning data alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sdpo.errors import UserError
from sdpo.tracking import provenance
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.known import best as best_of
from sdpo.tracking.run_info import now
from studies.evidence.attempt import changed_files
from studies.evidence.index import Index
from studies.evidence.reaching import Passes, mean_over_budget
from studies.evidence.record import Record
from studies.evidence.studies import ALGORITHMS, Chosen, RunSpec

_NOT_CHOSEN = ("seed=", "data.world_seed=", "run.keep_checkpoints=")
RULE = (
    "For each method, of its configurations in part `{part}` the one with the greatest mean training pass@1 over the "
    "budget: the area under the curve of pass@1 against generations, linear between evaluations, divided by the "
    "generations. Runs that failed take no part."
)


def area(record: Record) -> float:
    """Mean training pass@1 over the budget."""
    return mean_over_budget(Passes.of(record, "train"))


def choose(specs: Sequence[RunSpec], index: Index, out: Path) -> Chosen:
    """Write the settings file from the tuning records and return the choice.

    Raises UserError while tuning runs are missing, and where settings are chosen already: the runs of other parts were
    made with them.
    """
    if out.exists():
        raise UserError(f"The settings are chosen already: {out}. Later runs were made with them, so they stay.")
    part = specs[0].part
    if missing := [spec.id for spec in specs if index.get(spec.id) is None]:
        raise UserError(f"Tuning is not complete: {', '.join(missing)}. Run: python -m studies results {part}")
    candidates: dict[str, dict[str, Any]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for algorithm in ALGORITHMS:
        own = [spec for spec in specs if spec.algorithm == algorithm]
        rows = {spec.name: _candidate(spec, index.get(spec.id)) for spec in own}
        best = best_of(own, lambda spec: rows[spec.name].get("mean_pass_at_1"))  # noqa: B023 — called at once
        if best is None:
            raise UserError(
                f"Every tuning run of {algorithm} failed; try them again: python -m studies results {part} --retry"
            )
        candidates[algorithm] = rows
        chosen[algorithm] = {"run": best.id, "set": configuration(best)}
    content = {
        "rule": RULE.format(part=part),
        "made": {"by": "sdpo results settings", "at": now(), "commit": provenance.commit().split()[0]},
        "changes": changed_files(),
        "chosen": chosen,
        "candidates": candidates,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120).encode())
    return load_chosen(out)


def _candidate(spec: RunSpec, record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"set": configuration(spec)}
    if record.finished:
        return row | {"mean_pass_at_1": round(area(record), 4)}
    return row | {"failed": record.reason}


def configuration(spec: RunSpec) -> list[str]:
    """What the configuration is beyond its world and what all tuning runs share."""
    return [text for text in spec.overrides if not text.startswith(_NOT_CHOSEN)]


def load_chosen(path: Path) -> Chosen | None:
    """The choice of each algorithm; None if none was made yet.  Raises UserError for a file that is something else."""
    return chosen_by(load_settings(path)) if path.exists() else None


def chosen_by(settings: dict[str, Any]) -> Chosen:
    """The choice of each algorithm that a settings file holds."""
    return {algorithm: tuple(choice["set"]) for algorithm, choice in settings["chosen"].items()}


def load_settings(path: Path) -> dict[str, Any]:
    """The whole file."""
    try:
        content = yaml.safe_load(path.read_text())
        if set(content["chosen"]) != set(ALGORITHMS):
            raise ValueError(f"it chooses for {sorted(content['chosen'])}")
        return content
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} does not hold chosen settings ({error!r}); take it from git again.") from error
