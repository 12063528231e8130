"""What the kernel says of processes: running, stopped, or dead and by which signal."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import psutil

STOPPED_LOOKS = 2  # in a row; a debugger that samples a process stops it for milliseconds

# Linux ≥ 6.15 tells whoever holds a descriptor of a process how it ended (linux/pidfd.h, struct pidfd_info).
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("QQ11Ii")


class ProcessTable:
    """The processes of one machine that somebody depends on.  Lives on that machine: here, or as a Ray actor there."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._dead: dict[int, str] = {}
        self._stopped: dict[int, int] = defaultdict(int)
        self._oom_kills = _oom_kills()

    def look(self, process_ids: Iterable[int], children_of: Iterable[int] = ()) -> dict[int, str]:
        """What is wrong with whom; nothing for those that run or wait.

        children_of: processes whose children, of any generation, are looked at too.
        """
        wanted = list(process_ids)
        for parent in children_of:
            with suppress(psutil.NoSuchProcess):
                wanted += [child.pid for child in psutil.Process(parent).children(recursive=True)]
        return {number: trouble for number in wanted if (trouble := self._trouble(number))}

    def _trouble(self, number: int) -> str | None:
        if number in self._dead:
            return self._dead[number]
        descriptor = self._descriptors.get(number, -1)
        if descriptor < 0:
            try:
                descriptor = self._descriptors[number] = os.pidfd_open(number)
            except ProcessLookupError:
                self._dead[number] = "is gone"
                return self._dead[number]
            except OSError:  # out of descriptors: what /proc says has to do
                pass
        if (state := _state(number)) is None or (descriptor >= 0 and _ended(descriptor)):
            self._dead[number] = self._how_it_ended(number, descriptor)
            self.forget([number])
            return self._dead[number]
        self._stopped[number] = self._stopped[number] + 1 if state in "tT" else 0
        return "is stopped (SIGSTOP, or a debugger)" if self._stopped[number] >= STOPPED_LOOKS else None

    def _how_it_ended(self, number: int, descriptor: int) -> str:
        status = _exit_status(number, descriptor)
        if status is None:
            return "has died"
        if not os.WIFSIGNALED(status):
            return f"ended with exit status {os.WEXITSTATUS(status)}"
        name = signal.Signals(os.WTERMSIG(status)).name
        before, self._oom_kills = self._oom_kills, _oom_kills()
        if name == "SIGKILL" and self._oom_kills > before:
            return (
                "was killed (SIGKILL) while the kernel was short of memory: lower learner.micro_batch_tokens or "
                "rollout.max_num_seqs, or close other programs"
            )
        return f"was killed by {name}"

    def kill(self, process_ids: Iterable[int]) -> None:
        """SIGKILL, which also ends what is stopped."""
        for number in process_ids:
            with suppress(ProcessLookupError, PermissionError):
                if number not in self._descriptors:
                    if number not in self._dead:
                        os.kill(number, signal.SIGKILL)
                else:
                    signal.pidfd_send_signal(self._descriptors[number], signal.SIGKILL)

    def forget(self, process_ids: Iterable[int]) -> None:
        """Close what is held open of them."""
        for number in process_ids:
            if (descriptor := self._descriptors.pop(number, -1)) >= 0:
                os.close(descriptor)
            self._stopped.pop(number, None)


def _fields(number: int) -> list[str]:
    """/proc/<pid>/stat from the state on, the third field."""
    with open(f"/proc/{number}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode().split()


def _state(number: int) -> str | None:
    """The letter of /proc/<pid>/stat; None for what has ended."""
    try:
        state = _fields(number)[0]
    except (OSError, IndexError):
        return None
    return None if state in "ZXx" else state


def _ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _exit_status(number: int, descriptor: int) -> int | None:
    """As of waitpid; None where the kernel does not tell."""
    with suppress(OSError, IndexError, ValueError):  # its parent has not asked for it yet
        fields = _fields(number)
        return int(fields[49]) if fields[0] == "Z" else None
    if descriptor < 0:
        return None
    answer = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(answer)
    return status if mask & _PIDFD_INFO_EXIT else None


def _oom_kills() -> int:
    """Processes that this machine's kernel has killed for lack of memory."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
