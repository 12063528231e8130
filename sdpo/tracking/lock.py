"""One process per run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

from sdpo.errors import UserError

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_PATIENCE_S = 0.3  # whoever only asks whether the folder is locked holds it for microseconds
_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """An exclusive `flock` on `<folder>/lock`, with the owner in the file: process id, host, moment of its start.

    The kernel drops the lock when its owner dies, however it dies, so a lock that a dead process left behind is simply
    taken over.  Forked children close their copy at once: they must not keep the lock of a dead parent alive.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / "lock"
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self) -> None:
        """Raises `UserError` if another living process has it."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        patience = time.monotonic() + _PATIENCE_S
        while (refused := _try_lock(fd)) in _TAKEN and time.monotonic() < patience:
            time.sleep(0.02)
        if refused in _TAKEN:
            owner = _owner(fd)
            os.close(fd)
            raise UserError(
                f"Another process{owner} is training in {self.path.parent}. Wait until it has finished, stop it, or "
                "give this run another name (name=…)."
            )
        if refused:  # some network file systems have no locks; a run there is still better than none
            warnings.warn(
                f"{self.path.parent} is on a file system without locks: do not start a second run there", stacklevel=2
            )
        os.ftruncate(fd, 0)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
        os.pwrite(fd, json.dumps(owner).encode() + b"\n", 0)
        self._fd = fd
        _held.add(self)

    def release(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.ftruncate(fd, 0)  # the file stays: removing it would let two later processes lock different files
            os.close(fd)

    def _forget(self) -> None:
        """In a forked child: close the copy without unlocking the parent's."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def is_locked(folder: Path) -> bool:
    """Whether a living process (this one included) holds the lock of `folder`.

    On a file system without locks, whether the process that is named in the file lives; on another host it may.
    """
    try:
        fd = os.open(Path(folder) / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        refused = _try_lock(fd)
        return refused in _TAKEN or bool(refused and _may_live(_read(fd)))
    finally:
        os.close(fd)


def owner_in(folder: Path) -> dict[str, Any] | None:
    """Who held the lock last and did not release it; None if nobody did."""
    try:
        fd = os.open(Path(folder) / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _started(pid: int) -> str:
    """The moment of a process's start in the kernel's ticks, which tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _may_live(owner: dict[str, Any] | None) -> bool:
    if owner is None:
        return False
    return owner["host"] != socket.gethostname() or _started(owner["pid"]) == owner.get("started", "-")


def _try_lock(fd: int) -> int:
    """0, or the error number of the refusal."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _read(fd: int) -> dict[str, Any] | None:
    try:
        owner = json.loads(os.pread(fd, 4096, 0))
        return owner if isinstance(owner["pid"], int) and isinstance(owner["host"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _owner(fd: int) -> str:
    owner = _read(fd)
    return f" (process {owner['pid']} on {owner['host']})" if owner else ""


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
