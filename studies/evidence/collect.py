"""From a run folder to its record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdpo.config.schema import Recipe
from sdpo.evaluation import EvaluationResult
from sdpo.tracking import RunFolder
from sdpo.tracking.metrics_file import finite
from studies.evidence.record import Columns, PassCounts, Record
from studies.evidence.studies import RunSpec

_CLOCK = ("step", "generations", "wall_clock_s")
_LEFT_OUT = ("time", "weights/bytes")  # the time of day; a constant
_DIGITS = 5


def collect(
    spec: RunSpec, recipe: Recipe, folder: Path, command: str, status: str, reason: str, attempts: list[dict[str, Any]]
) -> Record:
    """Whatever the folder holds, be the run complete or not."""
    run = RunFolder(folder)
    info, rows = run.info, run.metrics
    return Record(
        run=spec.id,
        algorithm=spec.algorithm,
        world=spec.world,
        seed=spec.seed,
        command=command,
        commit=attempts[0]["commit"],
        changes=sorted({path for attempt in attempts for path in attempt["changes"]}),
        hardware=attempts[-1]["hardware"] if info is None else info.hardware,
        started=attempts[0]["started"],
        ended=attempts[-1]["ended"],
        elapsed_s=round(sum(attempt["elapsed_s"] for attempt in attempts), 1),
        status=status,
        reason=reason,
        settings=recipe.model_dump(mode="json"),
        attempts=attempts,
        train=_columns([row for row in rows if "policy/entropy" in row]),
        eval=_columns([row for row in rows if any(key.startswith("eval/") for key in row)]),
        problems=_problems(folder / "evaluations"),
        used_by=[spec.id],
    )


def _columns(rows: Sequence[dict[str, Any]]) -> Columns:
    keys = dict.fromkeys((*_CLOCK, *(key for row in rows for key in row)))
    return {key: [_short(row.get(key)) for row in rows] for key in keys if key not in _LEFT_OUT}


def _short(value: Any) -> Any:
    value = finite(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.{_DIGITS}g}")
    return value


def _problems(folder: Path) -> dict[str, PassCounts]:
    """Counts of every evaluation file `step-000010-held_out.json`, by data set."""
    found: dict[str, dict[int, EvaluationResult]] = {}
    for path in sorted(folder.glob("step-*.json")):
        match = re.fullmatch(r"step-(\d+)-(.+)", path.stem)
        if match:
            found.setdefault(match[2], {})[int(match[1])] = EvaluationResult.load(path)
    return {dataset: _counts(results) for dataset, results in found.items()}


def _counts(results: dict[int, EvaluationResult]) -> PassCounts:
    first = next(iter(results.values())).problems
    ids = [problem.id for problem in first]
    passed = []
    for result in results.values():
        by_id = {problem.id: problem.c for problem in result.problems}
        passed.append([by_id[i] for i in ids])
    return PassCounts(ids, [problem.difficulty for problem in first], first[0].n, list(results), passed)
