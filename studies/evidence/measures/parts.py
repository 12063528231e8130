"""The parts `forgetting` and `teacher`: which policies they measure, and where the results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpo.config.files import validate
from sdpo.config.paths import locate
from sdpo.errors import UserError
from sdpo.training.checkpoints import Checkpoints
from studies.evidence.evidence import Evidence
from studies.evidence.layout import Layout
from studies.evidence.record import Record

BEFORE = "before"  # the file of the initial policy
# Measured beside the ends of the comparison's runs, since these differ in more than their method: GRPO's chosen
# settings hold it to the initial policy, and SDPO has learned more by its end.  File → run, step (None: its last).
BESIDE = {
    "grpo-world0-recipe": ("tuning/grpo-world0", None),
    "sdpo-world0-step20": ("comparison/sdpo-world0", 20),
}
Say = Callable[[str], None]


def forgetting(evidence: Evidence, layout: Layout, say: Say) -> None:
    """Skills of the initial policy, and of the last checkpoint of every run of the comparison."""
    from studies.evidence.measures import skills

    _quiet()
    records = _compared(evidence)
    worlds = sorted({record.world for record in records.values()})
    paths = {record.settings["model"]["path"] for record in records.values()}
    if len(paths) != 1:
        raise UserError(f"The runs of the comparison began with several policies ({', '.join(paths)}).")
    out = layout.skills / f"{BEFORE}.json"
    if not set(map(str, worlds)) <= set(evidence.skills.get(BEFORE, {"own": {}})["own"]):
        policy = Path(locate(paths.pop()))
        skills.measure(policy, {"policy": BEFORE, "run": None, "step": 0}, worlds, True, out, say)
    chosen = [(name, record, None) for name, record in records.items()]
    beside = [(name, evidence.index.finished(run), step) for name, (run, step) in BESIDE.items()]
    for name, record, at in chosen + [(name, record, at) for name, record, at in beside if record is not None]:
        out = layout.skills / f"{name}.json"
        if not out.exists():
            step, policy = _policy(record, layout, at)
            label = {"policy": name, "run": record.run, "algorithm": record.algorithm, "step": step}
            skills.measure(policy, label, [record.world], False, out, say)


def teacher(evidence: Evidence, layout: Layout, say: Say) -> None:
    """The teacher of every SDPO run of the comparison, at each of its checkpoints."""
    from studies.evidence.measures import teacher as measured

    _quiet()
    for name, record in _compared(evidence).items():
        out = layout.teacher / f"{name}.json"
        if record.algorithm == "sdpo" and not out.exists():
            _policy(record, layout)
            recipe = validate(record.settings, record.run, resolved=True)
            label = {"run": record.run, "world": record.world}
            measured.measure(recipe, layout.folder(record.run), label, out, say)


def _quiet() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for each model that is loaded


def _compared(evidence: Evidence) -> dict[str, Record]:
    """The finished runs of the comparison by name."""
    found = {spec.name: record for spec, record in evidence.finished("comparison")}
    if not found:
        raise UserError(
            "The runs of the comparison are measured, and there are none yet: python -m studies results comparison"
        )
    return found


def _policy(record: Record, layout: Layout, step: int | None = None) -> tuple[int, Path]:
    """(step, model folder) of a checkpoint; None: the last one."""
    folder = layout.folder(record.run)
    last = Checkpoints(folder / "checkpoints", 0).last()
    if step is not None and last is not None:
        last = last.with_name(f"step-{step:06d}")
    if last is None or not last.is_dir():
        raise UserError(
            f"The checkpoints of {record.run} are not in {folder} (they are not committed). Make the run again there, "
            f"with its own command: {record.command}"
        )
    return Checkpoints.state(last).step, last / "policy"
