"""Processes as Linux shows them in /proc, and the few calls that Python has no name for."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TICKS = os.sysconf("SC_CLK_TCK")


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """0 takes it back.  The parent counts as dead when the thread that made this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Descendants whose parents ended become children of this process, not of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def expendable() -> None:
    """No core files, and the first to go when memory runs out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def only_when_idle(pid: int) -> bool:
    """Let the leader of a session and its descendants run where nobody else wants the core.

    False: the kernel takes one such wish at a time; ask again a moment later.
    """
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(each, os.SCHED_IDLE, os.sched_param(0))
    try:  # the kernel shares cores among sessions first, each with a weight of its own (sched(7), autogroup)
        Path(f"/proc/{pid}/autogroup").write_text("19")
    except BlockingIOError:
        return False
    except OSError:  # it does not do so here
        return True
    return True


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(task.path, "children").read_text().split())
    return found


def is_running(pid: int) -> bool:
    """Whether the process has not ended, reaped or not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def bounded_file(size: int) -> int:
    """A file in memory that holds so many bytes; writing beyond them fails."""
    fd = os.memfd_create("output", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    level = children(pid)
    while level:
        found += level
        level = [below for each in level for below in children(each)]
    return found


@dataclass(frozen=True)
class Usage:
    """Seconds that a process with its descendants ran, and that they waited for a core."""

    ran: float = 0.0
    waited: float = 0.0

    def since(self, before: Usage) -> Usage:
        return Usage(max(0.0, self.ran - before.ran), max(0.0, self.waited - before.waited))


def usage(pid: int) -> Usage:
    """That of main threads, and of children that it waited for; zero for a process that is gone."""
    ran = waited = 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        ran += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15])) / _TICKS
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError, ValueError):
            on_core, in_queue, _ = map(int, Path(f"/proc/{each}/schedstat").read_text().split())
            ran, waited = ran + on_core / 1e9, waited + in_queue / 1e9
    return Usage(ran, waited)


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        return f"it was ended by {name}" + (" (out of memory, perhaps)" if number == signal.SIGKILL else "")
    return f"its process ended by itself with status {os.waitstatus_to_exitcode(status)}"
