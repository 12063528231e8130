"""A run that goes on from its mirror: on another machine, or where the mirror has a checkpoint that is not here."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sdpo.checkpoints.manifest import NAME, Damaged
from sdpo.checkpoints.mirror import FOLDER, RUN, Mirror, step_folder
from sdpo.errors import UserError
from sdpo.tracking import Console, Phase, RunFolder, ensure_free
from sdpo.tracking.lock import FolderLock
from sdpo.training.checkpoints import Checkpoints, step_of

_MIB = 2**20


def fetch(mirror: Mirror, run: Path) -> None:
    """Bring the run folder `run` to where the mirror is, if that is further; else nothing happens.

    Raises:
        UserError: the mirror does not answer, holds another run of this name, or has no whole checkpoint.
    """
    with answering(mirror):
        found = mirror.files()
        if RUN not in found:
            return
        theirs = str(json.loads(mirror.read(RUN))["created"])
    info = RunFolder(run).info
    if info is not None and info.created != theirs:
        raise UserError(
            f"{mirror.address} holds another run of this name, begun {theirs}; the one in {run} was begun "
            f"{info.created}. Give this one another name (name=…) or mirror (run.mirror=…), or start afresh (--fresh), "
            "which sets both aside."
        )
    run.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(run)
    lock.acquire()
    try:
        with Console(mirror.name, 0) as console:
            _Fetch(mirror, run, found, console).make(begin=info is None)
    finally:
        lock.release()


def is_complete(mirror: Mirror, run: Path) -> bool:
    """Whether the mirror has all of a run that has ended: run.json is copied last."""
    with answering(mirror):
        return RUN in mirror.files() and mirror.read(RUN) == (run / RUN).read_bytes()


@contextmanager
def answering(mirror: Mirror) -> Iterator[None]:
    """What a file system raises, in exceptions of its own, as a UserError; a full disk here stays one."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"The mirror {mirror.address} cannot be read ({type(error).__name__}: {said}). Correct run.mirror or the "
            "access to it, or leave run.mirror out to go on with what is here."
        ) from error


class _Fetch:
    """found: the mirror's files and their sizes."""

    def __init__(self, mirror: Mirror, run: Path, found: Mapping[str, int], console: Console) -> None:
        self._mirror, self._run, self._found, self._console = mirror, run, found, console
        self._checkpoints = Checkpoints(run / FOLDER, 0)
        self._done = self._total = 0  # bytes
        self._phase: Phase

    def make(self, begin: bool) -> None:
        """begin: there is no run here yet, so that its records are fetched even if no checkpoint is newer."""
        complete = {step for name in self._found if (step := step_folder(name)) and name.endswith(f"{step}/{NAME}")}
        steps = sorted(complete, key=lambda step: step_of(Path(step)), reverse=True)
        here = self._newest_here() if steps else -1
        ahead = [step for step in steps if step_of(Path(step)) > here]
        if not ahead and not begin:
            return
        records = [name for name in self._found if not name.startswith(f"{FOLDER}/") and name != RUN]
        ensure_free(self._run, self._size(*ahead[:1]) + sum(self._found[name] for name in records))
        with (
            self._console.phase(f"fetching from {self._mirror.address} (MiB)", announce=True) as self._phase,
            answering(self._mirror),
        ):
            newest = next((path for step in ahead if (path := self._get(step)) is not None), None)
            if newest is None and ahead and here < 0:
                raise UserError(
                    f"No checkpoint in {self._mirror.address} is whole. Bring back a copy, or start afresh (--fresh)."
                )
            if newest is not None:
                best = f"step-{self._checkpoints.state(newest).best_step:06d}"
                if best in steps and not (self._run / FOLDER / best).exists():
                    self._get(best)
            if newest is not None or begin:
                self._total += sum(self._found[name] for name in records)
                for name in (*records, RUN):  # the last makes the folder a run
                    self._mirror.get(name, self._run / name, self._count)
        said = "the records" if newest is None else newest.name
        self._console.message(f"Fetched {said} of {self._mirror.name} from {self._mirror.address}.")

    def _newest_here(self) -> int:
        """The step of the newest whole checkpoint of the folder; -1: there is none."""
        if not (checkpoints := self._checkpoints.all()):
            return -1
        with self._console.phase("verifying the last checkpoint", announce=True):
            return next((step_of(path) for path in checkpoints if self._checkpoints.is_whole(path)), -1)

    def _get(self, step: str) -> Path | None:
        """Fetch a checkpoint; None, with a warning, if it is not as it was written."""
        partial = self._run / FOLDER / f"{step}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        self._total += self._size(step)
        try:
            self._mirror.get_checkpoint(step, partial, self._count)
        except Damaged as error:
            shutil.rmtree(partial)
            self._console.message(f"warning: checkpoint {step} of the mirror is damaged and not used: {error}.")
            return None
        return self._checkpoints.adopt(partial)

    def _size(self, *steps: str) -> int:
        return sum(size for name, size in self._found.items() if step_folder(name) in steps)

    def _count(self, size: int) -> None:
        self._done += size
        self._phase.update(self._done // _MIB, self._total // _MIB)
