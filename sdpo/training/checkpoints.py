"""Checkpoints of everything that a run is: written aside, renamed into place when complete, resumed from the last one.

checkpoints/step-000010/
  student/        DeepSpeed's state: weights, optimiser, learning-rate schedule
  teacher*.pt     the moving-average teacher in fp32
  policy/         the student as a Hugging Face folder, with tokenizer
  trainer.json    `TrainerState`
checkpoints/last, checkpoints/best   links
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdpo.errors import UserError


@dataclass
class TrainerState:
    """What the driver knows beyond weights.  `step` generation batches are done."""

    step: int = 0
    generations: int = 0
    generated_tokens: int = 0
    random_state: dict[str, Any] = field(default_factory=dict)  # of the generator that draws demonstrations
    best_value: float = -1.0
    best_step: int = 0
    evaluated_step: int = -1  # the last one that was measured


class Checkpoints:
    """The checkpoints of one run.  `keep`: how many older ones stay beside last and best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into; `commit` makes it count."""
        for leftover in self.folder.glob("*.partial"):
            shutil.rmtree(leftover)
        partial = self.folder / f"step-{step:06d}.partial"
        partial.mkdir(parents=True)
        return partial

    def commit(self, partial: Path, state: TrainerState, best: bool) -> Path:
        """Write the driver's state, rename the folder into place, move the links, drop what need not be kept."""
        for part in ("student", "policy/config.json"):
            if not (partial / part).exists():
                raise UserError(
                    f"The learner wrote no {part} into {partial}. Does every machine of the cluster see this folder "
                    "under the same path?"
                )
        (partial / "trainer.json").write_text(json.dumps(asdict(state), indent=1))
        final = partial.with_suffix("")
        if final.exists():  # the same step, written again after a resume
            shutil.rmtree(final)
        partial.rename(final)
        self._link("last", final)
        if best:
            self._link("best", final)
        self._drop_old()
        return final

    def last(self) -> Path | None:
        """The last complete checkpoint; None if there is none."""
        complete = sorted(self.folder.glob("step-??????"))
        return complete[-1] if complete else None

    @staticmethod
    def state(checkpoint: Path) -> TrainerState:
        return TrainerState(**json.loads((checkpoint / "trainer.json").read_text()))

    def _link(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.rename(self.folder / name)

    def _drop_old(self) -> None:
        linked = {(self.folder / name).resolve() for name in ("last", "best")}
        older = [c for c in sorted(self.folder.glob("step-??????")) if c.resolve() not in linked]
        for checkpoint in older[: max(len(older) - self.keep, 0)]:
            shutil.rmtree(checkpoint)


def find_policy(where: str) -> Path:
    """The Hugging Face folder behind a path: itself, a checkpoint's, or a run's best checkpoint's."""
    path = Path(where)
    for candidate in (
        path,
        path / "policy",
        path / "checkpoints" / "best" / "policy",
        path / "checkpoints" / "last" / "policy",
    ):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    raise UserError(
        f"There is no model in {path}: neither a Hugging Face folder (config.json), nor a checkpoint, nor a run. "
        "Give one of these, for example runs/<name>, runs/<name>/checkpoints/last, or a model folder."
    )
