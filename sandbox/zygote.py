"""The judge's end of the fork server: start it, ask it for children, hear of their deaths."""

from __future__ import annotations

import array
import errno
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import wire
from .errors import IsolationUnavailable, SandboxError

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_START_TIMEOUT_S = 30.0
_PAGE_KIB = resource.getpagesize() // 1024


@dataclass(frozen=True)
class Exit:
    """How a child ended, as the kernel told its parent."""

    slot: int
    status: int  # of waitpid
    cpu_time_s: float
    peak_memory_mb: float

    @property
    def signal(self) -> int | None:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None

    @property
    def code(self) -> int:
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else -1


class Child:
    """One waiting or running child: its doorbell, its reports, its stdin and stdout files, its process."""

    def __init__(self, slot: int, descriptors: list[int]) -> None:
        self.slot = slot
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors[0])
        self.reports, self.stdin, self.stdout = descriptors[1:]
        os.set_blocking(self.reports, False)
        self.process_id = 0
        self.pidfd = -1
        self.registered, self.closed = True, False  # with the engine's selector

    def ready(self) -> bool:
        """Read the greeting, which carries the process id as seen from here.  False: the child has died instead."""
        try:
            data, ancillary, *_ = self.connection.recvmsg(1, socket.CMSG_SPACE(12))
        except ConnectionError:
            return False
        if data != wire.READY:
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.process_id = int.from_bytes(content[:4], sys.byteorder)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        try:
            self.pidfd = os.pidfd_open(self.process_id)
        except ProcessLookupError:
            return False
        return True

    def cpu_time_s(self) -> float | None:
        """CPU seconds of the whole process, read from outside; None once it is gone."""
        try:
            return time.clock_gettime((~self.process_id << 3) | 2)  # the kernel's clock id of another process
        except OSError:
            return None

    def waited_s(self) -> float:
        """Seconds in which threads of the process were ready to run and had no core, all in all."""
        waited_ns = 0
        try:
            threads = os.listdir(f"/proc/{self.process_id}/task")
        except OSError:
            return 0.0
        for thread in threads:
            try:
                with open(f"/proc/{self.process_id}/task/{thread}/schedstat", "rb", buffering=0) as file:
                    waited_ns += int(file.read(128).split()[1])
            except (OSError, IndexError):  # it has just ended; or the kernel does not count this
                continue
        return waited_ns / 1e9

    def new_reports(self) -> bytes:
        """Some of what has been written since; b"" for nothing, also from a child that has gone."""
        try:
            return os.read(self.reports, 1 << 18)
        except (BlockingIOError, ConnectionError):
            return b""

    def resident_kib(self) -> int:
        """Memory that the child holds now, as the kernel counts it."""
        try:
            fd = os.open(f"/proc/{self.process_id}/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            return int(os.read(fd, 128).split()[1]) * _PAGE_KIB
        except OSError:
            return 0
        finally:
            os.close(fd)

    def stopped(self) -> bool:
        """By a signal, so that it does nothing and answers nothing."""
        return not self.closed and is_stopped(self.process_id)

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pidfd >= 0 and not self.closed:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        self.closed = True
        self.connection.close()
        for fd in (self.reports, self.stdin, self.stdout, self.pidfd):
            if fd >= 0:
                os.close(fd)


class Zygote:
    """A running fork server.  Must be created by a thread that outlives it: the server dies with that thread."""

    PLACES = 2  # servers of one sandbox; the slots of their children differ, and with them their user ids

    def __init__(
        self, isolation: str, packages: tuple[str, ...], outer: tuple[str, ...] = (), numpy: bool = False
    ) -> None:
        """outer: a command that runs the rest of its command line behind a wall of its own.

        numpy: load numpy before forking, and do not wait for that: `hello` is the caller's, once there is a message.
        """
        self.assertions = False  # whether new children are to have what assertion tests need; the server keeps it
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # tells the server's process id
        settings = {
            "parent": None if outer else os.getpid(),  # in between is a process whose number nobody knows
            "isolation": isolation,
            "packages": packages,
            "numpy": numpy,
            "slots": [int(numpy), self.PLACES],  # the last one that is taken already, the step to the next one
            "site_packages": sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
        }
        command = [
            *outer,
            sys.executable,
            "-I",
            "-S",
            *(["-B"] if sys.dont_write_bytecode else []),
            str(_BOOTSTRAP),
            str(theirs.fileno()),
            json.dumps(settings),
        ]
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                process_group=0,  # not a session: the kernel schedules each as one, and starves it beside a busy one
            )
        except OSError as error:
            self.control.close()
            raise SandboxError(f"the fork server did not start: {error}") from None
        finally:
            theirs.close()
        self.report: dict = {}
        if not numpy:
            self.hello()

    def hello(self) -> None:
        """Wait for the server to say what it found: `report`.  Raises SandboxError, its end, where it cannot serve."""
        readable, _, _ = select.select([self.control], [], [], _START_TIMEOUT_S)
        message, self.server_id = self._first_message() if readable else (b"", 0)
        if not message:
            self.process.kill()
            complaint = self.process.communicate()[1].decode(errors="replace").strip()
            self.control.close()
            raise SandboxError(f"the fork server did not start: {complaint or 'no answer'}")
        report = json.loads(message)
        if "problem" in report:
            self.close()
            raise IsolationUnavailable(report["problem"])
        self.report = report

    def _first_message(self) -> tuple[bytes, int]:
        """With the number, as seen from here, of the process that sent it: the server proper, behind all walls."""
        message, ancillary, *_ = self.control.recvmsg(1 << 16, socket.CMSG_SPACE(12))
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        senders = [
            int.from_bytes(content[:4], sys.byteorder)
            for level, kind, content in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        return message, senders[0] if senders else 0

    def stopped(self) -> bool:
        return is_stopped(self.server_id)

    def kill(self) -> None:
        """End a server that answers no more; its socket then says that it is gone."""
        for process_id in (self.server_id, self.process.pid):
            if process_id:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)

    def request(self, count: int, rehearse: bool) -> None:
        """Ask for children; `rehearse`: warmed up, for programs to come rather than for one that waits."""
        self.control.send(wire.SPAWN.pack(b"S", count, rehearse, self.assertions))

    def messages(self) -> Iterator[Child | Exit]:
        """What has arrived.  Raises EOFError when the server is gone."""
        while True:
            try:
                data, ancillary, flags, _ = self.control.recvmsg(256, socket.CMSG_SPACE(16), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionError:
                raise EOFError from None
            if not data:
                raise EOFError
            if flags & socket.MSG_CTRUNC:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if data[:1] == b"C":
                descriptors = array.array("i", ancillary[0][2])
                yield Child(wire.SPAWNED.unpack(data)[1], list(descriptors))
            else:
                _, slot, status, cpu, peak_kib = wire.EXITED.unpack(data)
                yield Exit(slot, status, cpu, peak_kib / 1024)

    def close(self) -> None:
        """End the server; it takes its children with it."""
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.control.close()


def is_stopped(process_id: int) -> bool:
    """Whether a process stands still, by a signal or a debugger; not where there is none of that number."""
    if process_id <= 0:
        return False
    try:
        with open(f"/proc/{process_id}/stat", "rb", buffering=0) as file:
            return file.read(512).rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def _environment() -> dict[str, str]:
    """All that a program can see of the environment, and what the server takes out of it."""
    return {
        "LD_BIND_NOW": "1",  # else each child looks up every function of a library that it calls first
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # the same judgement for the same program
        "OPENBLAS_NUM_THREADS": "1",  # their thread pools would reserve gigabytes of address space
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
