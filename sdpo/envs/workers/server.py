"""The server of a pool: imports the function once, and forks a worker whenever the driver asks for one.

A fork takes milliseconds where a new process would import everything again, so that a worker that hangs or died is
replaced at once.  The server adopts what its workers leave behind: it can end a worker with everything that the worker
ever started.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import inspect
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from sdpo.envs.reference import NotFound, find_function
from sdpo.envs.workers import linux, wire
from sdpo.envs.workers.worker import Output, brief, serve, trace


def main(control_fd: int, crash_fd: int) -> None:
    """control_fd: a SEQPACKET socket to the driver; crash_fd: where the traceback of a crash of the import goes."""
    linux.die_with_parent()  # an import may hang, and then nobody sees that the driver is gone
    os.setpgid(0, 0)  # not a session: the kernel may schedule each as one, and starves it beside a busy one
    linux.adopt_orphans()
    linux.expendable()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what the driver blocks is no business of a user's function
    faulthandler.enable(crash_fd)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    os.set_inheritable(crash_fd, False)
    output = Output()
    sys.stdout = sys.stderr = output  # type: ignore[assignment]
    spec = json.loads(control.recv(wire.MAX_CONTROL))
    try:
        function = imported(spec)
    except BaseException as error:
        known = isinstance(error, NotFound)
        _tell(control, failed=str(error) if known else brief(error), traceback="" if known else trace(error))
        os._exit(1)
    gc.collect()
    gc.freeze()  # what is there stays shared with the workers
    linux.die_with_parent(0)
    _tell(control, ready=True, output=output.take()[0])
    Server(control, function, output).run()
    os._exit(0)


def imported(spec: dict[str, Any]) -> Callable[..., Any]:
    """The function that the driver names, behind its adapter."""
    sys.path[:] = spec["path"]
    function = find_function(spec["function"], spec["option"])
    if inspect.iscoroutinefunction(function):
        importlib.import_module("asyncio")  # once for all workers
    if spec["adapter"] is None:
        return function
    module, _, name = spec["adapter"].partition(":")
    adapter = getattr(importlib.import_module(module), name)
    return lambda *arguments: adapter(function, *arguments)


class Server:
    """Forks, ends and buries workers; the driver knows each by a number of its own."""

    def __init__(self, control: socket.socket, function: Callable[..., Any], output: Output) -> None:
        self.control, self.function, self.output = control, function, output
        self.workers: dict[int, tuple[int, int]] = {}  # process → (number, file of its crash)
        self.woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until the driver is gone."""
        while True:
            ready, _, _ = select.select([self.control.fileno(), self.woken], [], [])
            if self.woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self._bury()
            if self.control.fileno() in ready and not self._obey():
                break
        for pid in list(self.workers):
            self._end(pid)
        with contextlib.suppress(ChildProcessError):  # none is left; those of the killed come one by one
            while True:
                self._sweep()
                os.waitpid(-1, 0)

    def _obey(self) -> bool:
        """Whether the driver is still there."""
        try:
            message, fds, _, _ = socket.recv_fds(self.control, wire.MAX_CONTROL, 1)
        except ConnectionError:
            return False
        if not message:
            return False
        asked = json.loads(message)
        if "fork" in asked:
            self._fork(asked["fork"], fds[0])
        else:
            for pid in [pid for pid, (number, _) in self.workers.items() if number == asked["end"]]:
                self._end(pid)
        return True

    def _fork(self, number: int, channel_fd: int) -> None:
        crash = os.memfd_create("crash", os.MFD_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(crash)
            _tell(self.control, died=number, how=f"no process could be started ({error})", traceback="")
            pid = -1
        if pid == 0:
            self._become_worker(channel_fd, crash)
        if pid > 0:
            self.workers[pid] = (number, crash)
        os.close(channel_fd)

    def _become_worker(self, channel_fd: int, crash: int) -> None:
        try:
            linux.die_with_parent()
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            for _, other in self.workers.values():
                os.close(other)
            faulthandler.enable(crash)
            self.output.take()
            self.output.open_below()
            os.set_inheritable(channel_fd, False)
            serve(socket.socket(fileno=channel_fd), self.function, self.output)
        finally:
            os._exit(0)

    def _end(self, pid: int) -> None:
        """Kill a worker and whatever descends from it, sessions of their own included."""
        below = linux.descendants(pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        for each in (pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def _bury(self) -> None:
        """Reap what ended, tell the driver which workers did, and end what they left behind."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                break
            if ended.si_pid in self.workers:  # its process group is its own as long as it is not reaped
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            if (known := self.workers.pop(ended.si_pid, None)) is not None:
                number, crash = known
                text = os.pread(crash, wire.MAX_TEXT, 0).decode(errors="replace")
                os.close(crash)
                _tell(self.control, died=number, how=linux.how_it_ended(status), traceback=text)
        self._sweep()

    def _sweep(self) -> None:
        """End adopted processes: their parents are gone, and nobody waits for them."""
        for pid in linux.children(os.getpid()):
            if pid not in self.workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _tell(control: socket.socket, **message: Any) -> None:
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode())
