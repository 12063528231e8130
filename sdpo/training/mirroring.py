"""The copy of a run at `run.mirror`: a thread keeps it behind the run; `sdpo.training.fetching` brings it back.

Order is what makes it safe.  Records (metrics, tables, pages) are copied before the checkpoints that they belong to, a
checkpoint's manifest after its files, run.json last of all.  So a checkpoint with a manifest has all its rows beside
it, and rows of later steps are cut when a run goes on from it, as after any interruption.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sdpo.checkpoints.manifest import NAME
from sdpo.checkpoints.mirror import FOLDER, RUN, Mirror, step_folder
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.tracking import Console
from sdpo.training.checkpoints import Checkpoints
from sdpo.training.interrupt import Signals

_LOOK_S = 3.0  # seconds between two looks for a new checkpoint
_RECORDS_S = 60.0  # between two copies of records without one
_RETRY_S, _LONGEST_RETRY_S = 15.0, 600.0  # after a copy that failed; doubled each time
_LAST_TRIES = 3  # when the run has ended
_NOT_COPIED = {FOLDER, "wandb", "logs", "lock"}
_MIB = 2**20


def mirror_of(recipe: Recipe, run: Path) -> Mirror | None:
    """The mirror of the run in the folder `run`; None without `run.mirror`.  Raises UserError for a bad address."""
    if recipe.run.mirror is None:
        return None
    mirror = Mirror(recipe.run.mirror, recipe.name)
    if mirror.local is not None:
        here, there = run.resolve(), mirror.local.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise UserError(
                f"run.mirror={recipe.run.mirror} would copy {run} into itself. Name a folder that is not the runs' own."
            )
    return mirror


def records(run: Path) -> Iterator[str]:
    """The files of a run folder that are copied, but for checkpoints and run.json, by their paths in it."""
    for top in sorted(run.iterdir()):
        if top.name in _NOT_COPIED or top.name == RUN or top.name.startswith("."):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                yield path.relative_to(run).as_posix()


class Mirroring:
    """Copies a run's folder behind the run, from `start` on; the end of the block waits for the last copy.

    It never disturbs the run: a copy that fails is told once and tried again.  Without a mirror it does nothing.
    """

    def __init__(self, mirror: Mirror | None, run: Path) -> None:
        self._mirror, self._run = mirror, run
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._failures, self._next = 0, 0.0
        self._stamps: dict[str, tuple[int, int]] = {}  # of the records that are there as they were here
        self._there: set[str] | None = None  # records that are there; None: nobody has looked yet
        self._whole: dict[str, bytes] = {}  # checkpoints that are there, and their manifests
        self._done = self._total = 0  # bytes of the copy under way

    def __enter__(self) -> Mirroring:
        return self

    def start(self, checkpoints: Checkpoints, tell: Callable[[str], None]) -> None:
        """The run has begun, and goes on."""
        if self._mirror is None:
            return
        self._checkpoints, self._tell, self._begun_ns = checkpoints, tell, time.time_ns()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last copy, however the run ended; a signal ends the wait, and the command."""
        if self._thread is None or not self._run.is_dir():
            return
        if Signals.active is not None:
            Signals.active.allow_any()
        self._ending.set()
        name = "copying to the mirror (MiB; Ctrl-C leaves)"
        with Console("mirror", 0) as console, console.phase(name, announce=True) as phase:
            self._tell = console.message
            while self._thread.is_alive():
                self._thread.join(0.2)
                phase.update(self._done // _MIB, self._total // _MIB)
        if self._failures:
            console.message(
                f"warning: {self._mirror.address} lacks the last of {self._run}. The same command copies it."
            )

    def _follow(self) -> None:
        while not self._ending.wait(_LOOK_S):
            if self._due():
                self._attempt()
        for attempt in range(1, _LAST_TRIES + 1):
            if self._attempt():
                break
            time.sleep(_LOOK_S * attempt if attempt < _LAST_TRIES else 0)

    def _due(self) -> bool:
        with suppress(OSError):
            return time.monotonic() >= self._next or (not self._failures and self._waiting() is not None)
        return False

    def _attempt(self) -> bool:
        try:
            self._copy()
        except Exception as error:  # file systems have their own; whatever it is, the run goes on
            if not self._failures:
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self._tell(f"warning: copying to {self._mirror.address} failed ({said}). It is tried again later.")
            self._next = time.monotonic() + min(_RETRY_S * 2 ** min(self._failures, 10), _LONGEST_RETRY_S)
            self._failures += 1
            return False
        if self._failures:
            self._tell(f"{self._mirror.address} is up to date again.")
        self._failures, self._next = 0, time.monotonic() + _RECORDS_S
        return True

    def _copy(self) -> None:
        """Make the mirror what the run folder is now."""
        self._done = self._total = 0
        if self._there is None:
            self._look()
        while True:
            checkpoint = self._waiting()
            self._copy_records()  # after the look: all rows of that checkpoint are written
            if checkpoint is None:
                break
            with self._checkpoints.held(checkpoint) as there:
                if there:
                    self._total += sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
                    self._whole[checkpoint.name] = self._mirror.put_checkpoint(checkpoint, self._count)
        kept = {checkpoint.name for checkpoint in self._checkpoints.all()}
        for dropped in self._whole.keys() - kept if kept else ():
            self._mirror.remove_checkpoint(dropped)
            del self._whole[dropped]
        self._put(RUN)

    def _look(self) -> None:
        """What is there already.  Tables of rollouts are written once, so that their size tells whether they are."""
        found = self._mirror.files()
        steps = {step for name in found if (step := step_folder(name)) is not None}
        for step in steps:
            self._whole[step] = self._mirror.read(name) if (name := f"{FOLDER}/{step}/{NAME}") in found else b""
        for name in records(self._run):
            stamp = self._stamp(name)
            if name.startswith("rollouts/") and found.get(name) == stamp[1] and stamp[0] < self._begun_ns:
                self._stamps[name] = stamp
        self._there = {name for name in found if not name.startswith(f"{FOLDER}/") and name != RUN}

    def _copy_records(self) -> None:
        here = list(records(self._run))
        for name in here:
            with suppress(FileNotFoundError):  # a table that made room for newer ones
                self._put(name)
                self._there.add(name)
        for gone in self._there - set(here):
            self._mirror.remove(gone)
            self._there.discard(gone)
            self._stamps.pop(gone, None)

    def _put(self, name: str) -> None:
        stamp = self._stamp(name)
        if self._stamps.get(name) != stamp:
            self._total += stamp[1]
            self._mirror.put(self._run / name, name, self._count)
            self._stamps[name] = stamp

    def _stamp(self, name: str) -> tuple[int, int]:
        about = (self._run / name).stat()
        return about.st_mtime_ns, about.st_size

    def _waiting(self) -> Path | None:
        """The newest checkpoint that is not there yet."""
        for checkpoint in self._checkpoints.all():
            with suppress(FileNotFoundError):  # dropped meanwhile
                if not checkpoint.suffix and self._whole.get(checkpoint.name) != (checkpoint / NAME).read_bytes():
                    return checkpoint
        return None

    def _count(self, size: int) -> None:
        self._done += size
