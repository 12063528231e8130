"""Checkpoints of everything that a run is: written aside, renamed into place when whole, verified before they are used.

checkpoints/step-000010/
  manifest.json   sizes and checksums of all files               (sdpo.checkpoints.manifest)
  state/          weights, optimiser, teacher, schedule          (sdpo.learner.checkpointing)
  policy/         the student as a Hugging Face folder, with tokenizer
  trainer.json    `TrainerState`
checkpoints/last, checkpoints/best   links

Other names are those of a moment, or of a process that was killed in it: `.partial` is being written, `.replaced` is
the one before of the same step (whole, until the new one has its name), `.dropped` is being removed.  `.damaged` did
not verify when a run went on, and nothing uses it.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from sdpo.checkpoints.durable import rename, sync_file, write_file
from sdpo.checkpoints.manifest import NAME, Damaged, FileRecord, read, seal, verify
from sdpo.errors import UserError

_WHOLE = re.compile(r"step-(\d{6,})(\.replaced)?")
_STATE = "trainer.json"


@dataclass(config={"strict": True, "extra": "forbid", "ser_json_inf_nan": "constants"})
class TrainerState:
    """What the driver knows beyond weights.  `step` generation batches are done."""

    step: int = 0
    generations: int = 0
    generated_tokens: int = 0
    random_state: dict[str, Any] | None = None  # of the generator that draws demonstrations
    algorithm: dict[str, Any] = field(default_factory=dict)  # what it remembers of earlier batches
    best_value: float = -1.0
    best_step: int = 0
    evaluated_step: int = -1  # the last one that was measured
    rollbacks: int = 0  # how often a guard took the run back
    teacher_step: int = 0  # after which a frozen teacher was taken from the policy
    rows: list[dict[str, Any]] = field(default_factory=list)  # of `step` in metrics.jsonl, should it lose them
    unlearned: list[int] = field(default_factory=list)  # groups under way, which come first in a run that goes on


class Checkpoints:
    """The checkpoints of one run.  `keep`: how many older ones stay beside last and best."""

    _verified: ClassVar[set[tuple[str, int, int]]] = set()  # by this process: reading 100 GB once is enough

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._held, self._dropping = "", threading.Lock()

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into; `commit` makes it count."""
        self._tidy()
        partial = self.folder / f"step-{step:06d}.partial"
        partial.mkdir(parents=True)
        return partial

    def commit(self, partial: Path, written: Mapping[str, FileRecord], state: TrainerState, best: bool) -> Path:
        """Bring everything to the disk, give it its name, move the links, drop what need not be kept.

        written: what the ranks say of the files that they wrote.  At no moment is there less than before.
        """
        state_file = "state/rank-00000.json"
        for part, there in ((state_file, (partial / state_file).is_file()), ("policy", is_policy(partial / "policy"))):
            if not there:
                raise UserError(
                    f"The learner wrote no {part} into {partial}. Does every machine of the cluster see this folder "
                    "under the same path?"
                )
        write_file(partial / _STATE, TypeAdapter(TrainerState).dump_json(state, indent=1))
        seal(partial, written)
        final, replaced = partial.with_suffix(""), partial.with_suffix(".replaced")
        if final.exists():  # the same step, written again after a resume
            rename(final, replaced)
        rename(partial, final)
        self._link("last", final)
        if best:
            self._link("best", final)
        self._drop_old()
        return final

    def all(self) -> list[Path]:
        """Those with a name that only a whole one gets, the newest first.  Their content is not looked at."""
        found = {}
        for path in self.folder.glob("step-*"):
            if (name := _WHOLE.fullmatch(path.name)) and path.is_dir():
                found[int(name[1]), name[2] is None] = path
        return [found[key] for key in sorted(found, reverse=True)]

    def last(self) -> Path | None:
        """The newest one; None if there is none."""
        return next(iter(self.all()), None)

    def usable(self, tell: Callable[[str], None]) -> Path | None:
        """The newest one that is as it was written, every file compared with its checksum; None: there never was one.

        Damaged ones are named to `tell` and set aside.  Raises UserError if they are all there is.
        """
        damaged: list[tuple[Path, Damaged]] = []
        for checkpoint in self.all():
            try:
                self._verify(checkpoint)
            except Damaged as error:
                damaged.append((checkpoint, error))
                continue
            for path, error in damaged:
                aside = self._set_aside(path)
                tell(
                    f"warning: checkpoint {path.name} is damaged and not used: {error}. Going on from "
                    f"{checkpoint.name}, which costs {step_of(path) - step_of(checkpoint)} steps; {aside} may be "
                    "deleted."
                )
            self._tidy()
            final = checkpoint.with_suffix("")
            self._repair_links(final)
            return final
        if damaged:
            said = "; ".join(f"{path.name}: {error}" for path, error in damaged)
            raise UserError(
                f"No checkpoint in {self.folder} is complete and undamaged ({said}). Restore a copy, or start "
                "afresh (--fresh)."
            )
        return None

    def go_back(self, good: int, since: int, tell: Callable[[str], None]) -> Path | None:
        """`usable`, after those that may be of a policy that had become worse were dropped.

        Kept are those of step `good` and before, and the best one if it is from before step `since`.
        """
        best = (self.folder / "best").resolve()
        for checkpoint in self.all():
            step = step_of(checkpoint)
            if step > good and (checkpoint.resolve() != best or step >= since):
                shutil.rmtree(self._name_dropped(checkpoint))
        for name in ("last", "best"):
            if not (self.folder / name).exists():
                (self.folder / name).unlink(missing_ok=True)
        return self.usable(tell)

    @staticmethod
    def state(checkpoint: Path) -> TrainerState:
        """Raises Damaged if it cannot be understood."""
        try:
            state = TypeAdapter(TrainerState).validate_json((checkpoint / _STATE).read_bytes())
            if state.random_state is not None:
                np.random.default_rng().bit_generator.state = state.random_state
            return state
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise Damaged(f"{_STATE} cannot be used ({' '.join(str(error).split())[:200]})") from None

    def copy(self, checkpoint: Path) -> Path:
        """Take over a whole one of another run, as the beginning of this one: what was best there counts no more."""
        written = {name: record for name, record in read(checkpoint).items() if name != _STATE}
        state = self.state(checkpoint)
        state.best_value, state.best_step, state.rows = -1.0, 0, []
        partial = self.begin(state.step)
        for name in written:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint / name, partial / name)
            sync_file(partial / name)
        return self.commit(partial, written, state, best=False)

    @contextmanager
    def held(self, checkpoint: Path) -> Iterator[bool]:
        """Another thread reads this checkpoint, which is not dropped meanwhile but by the next commit.  One at a time.

        False: it has been dropped already.
        """
        with self._dropping:
            there = checkpoint.is_dir()
            self._held = checkpoint.name if there else ""
        try:
            yield there
        finally:
            self._held = ""

    def adopt(self, partial: Path) -> Path:
        """Give a whole checkpoint from elsewhere its name; a damaged one that has it already is set aside."""
        final = partial.with_suffix("")
        if final.exists():
            self._set_aside(final)
        rename(partial, final)
        return final

    def is_whole(self, checkpoint: Path) -> bool:
        """Whether it is as it was written, every file compared with its checksum."""
        try:
            self._verify(checkpoint)
        except Damaged:
            return False
        return True

    def _verify(self, checkpoint: Path) -> None:
        try:
            about = (checkpoint / NAME).stat()
        except OSError:
            about = None
        key = about and (str(checkpoint.absolute()), about.st_ino, about.st_mtime_ns)
        if key not in self._verified:
            verify(checkpoint)
            self._verified.add(key)
        if self.state(checkpoint).step != step_of(checkpoint):
            raise Damaged(f"{_STATE} is of another step")

    def _tidy(self) -> None:
        """What a killed process left behind."""
        for path in self.folder.glob("step-*"):
            if path.suffix in (".partial", ".dropped"):
                shutil.rmtree(path)
            elif path.suffix == ".replaced":
                final = path.with_suffix("")
                if final.exists():
                    shutil.rmtree(path)
                else:
                    rename(path, final)

    def _set_aside(self, checkpoint: Path) -> Path:
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = checkpoint.with_name(f"{checkpoint.name}-{number}.damaged")
        rename(checkpoint, aside)
        return aside

    def _repair_links(self, checkpoint: Path) -> None:
        """A process may have been killed between a checkpoint's name and its links."""
        best = self.folder / f"step-{self.state(checkpoint).best_step:06d}"
        for name, target in (("last", checkpoint), ("best", best)):
            if target.is_dir() and (self.folder / name).resolve() != target.resolve():
                self._link(name, target)

    def _link(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        rename(temporary, self.folder / name)

    def _drop_old(self) -> None:
        linked = {(self.folder / name).resolve() for name in ("last", "best")}
        everything = self.all()
        finals = {path.name for path in everything}
        older = [path for path in reversed(everything) if path.resolve() not in linked]
        replaced = [path for path in older if path.suffix and path.stem in finals]
        older = [path for path in older if path not in replaced]
        for checkpoint in (*replaced, *older[: max(len(older) - self.keep, 0)]):
            with self._dropping:
                if checkpoint.name == self._held:
                    continue
                dropped = self._name_dropped(checkpoint)
            shutil.rmtree(dropped)

    def _name_dropped(self, checkpoint: Path) -> Path:
        dropped = checkpoint.with_suffix(".dropped")
        rename(checkpoint, dropped)
        return dropped


def step_of(checkpoint: Path) -> int:
    found = _WHOLE.fullmatch(checkpoint.name)
    assert found is not None
    return int(found[1])


def is_policy(folder: Path) -> bool:
    """Whether it holds a model, or an adapter for one, as Hugging Face's libraries write them."""
    return (folder / "config.json").is_file() or is_adapter(folder)


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def find_policy(where: str) -> Path:
    """The Hugging Face folder behind a path: itself, a checkpoint's, or a run's best checkpoint's.

    Raises:
        UserError: there is none, or the checkpoint's policy is not as it was written.
    """
    path = Path(where)
    checkpoints = path / "checkpoints"
    for candidate in (path, *(_behind(each) / "policy" for each in (path, checkpoints / "best", checkpoints / "last"))):
        checkpoint = candidate.resolve().parent
        sealed = candidate.name == "policy" and (checkpoint / NAME).is_file()
        if not sealed and not is_policy(candidate):
            continue
        if candidate is not path and not sealed:
            raise UserError(
                f"Checkpoint {checkpoint} has no {NAME}: it was not written completely, or by a version without "
                f"manifests. To use its policy unchecked, give {checkpoint / 'policy'}."
            )
        if sealed:
            try:
                verify(checkpoint, below="policy/")
            except Damaged as error:
                others = [str(c) for c in Checkpoints(checkpoint.parent, 0).all() if c != checkpoint]
                raise UserError(
                    f"Checkpoint {checkpoint} is damaged: {error}."
                    + (f" Give another one: {', '.join(others)}." if others else "")
                ) from None
        return candidate.resolve()
    raise UserError(
        f"There is no model in {path}: neither a Hugging Face folder (config.json or adapter_config.json), nor a "
        "checkpoint, nor a run. "
        "Give one of these, for example runs/<name>, runs/<name>/checkpoints/last, or a model folder."
    )


def _behind(link: Path) -> Path:
    """What a link stands for; a process may have been killed while the same step was written again."""
    target = link.resolve()
    replaced = target.with_name(f"{target.name}.replaced")
    return replaced if not target.exists() and replaced.is_dir() else link
