"""A process that is forked now and told later what it is to do; to multiprocessing it is one that was spawned.

A spawned process is a fresh Python, which imports everything again.  A forked one has what its parent has imported, but
must be forked while the parent has a single thread: what other threads hold at that moment is never let go of in the
fork.  So `fork` is called early, and `Context` is a context of multiprocessing whose first process is the one that
waits.  Each further one is spawned, and so is one that is to inherit pipes or sockets, which are younger than the fork.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import socket
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import context, popen_spawn_posix, process, reduction, spawn, util

from sdpo.supervision.lifeline import die_with

NO_MEANS = 1  # exit status of a process that could not become what it was to be


@dataclass
class _Waiting:
    """The process that waits to be told."""

    pid: int
    orders: socket.socket
    sentinel: int  # readable when it has ended

    def close(self) -> None:
        self.orders.close()
        os.close(self.sentinel)


_waiting: _Waiting | None = None


def fork(title: str) -> bool:
    """Fork the process that waits, and show it by this name; False, and nothing is forked, where there are threads."""
    global _waiting
    if len(os.listdir("/proc/self/task")) > 1:
        return False
    gc.freeze()  # searches for garbage in the fork would copy each page that they look at
    ours, theirs = socket.socketpair()
    ended, alive = os.pipe()
    parent = os.getpid()
    if (pid := os.fork()) == 0:
        code = NO_MEANS
        try:
            ours.close()
            os.close(ended)
            die_with(parent)
            _set_title(title)
            code = _wait(theirs)
        finally:
            os._exit(code)
    gc.unfreeze()
    theirs.close()
    os.close(alive)
    _waiting = _Waiting(pid, ours, ended)
    return True


def _set_title(title: str) -> None:
    """Before the environment is changed, beside which it finds its room."""
    with suppress(ImportError):  # it comes with vLLM
        from setproctitle import setproctitle

        setproctitle(title)


def is_waiting() -> bool:
    return _waiting is not None


def forget() -> None:
    """End the process that waits, if there is one still."""
    global _waiting
    if _waiting is not None:
        waiting, _waiting = _waiting, None
        waiting.close()
        with suppress(ChildProcessError):
            os.waitpid(waiting.pid, 0)


def _wait(orders: socket.socket) -> int:
    """Become what the parent says; returns the exit status."""
    message, descriptors, *_ = socket.recv_fds(orders, 1, 2)
    if not message:  # the parent needs no such process, or has ended
        return 0
    for number, descriptor in enumerate(descriptors, 1):  # its output and errors go where the parent's do by now
        os.dup2(descriptor, number)
        os.close(descriptor)
    sentinel = os.dup(orders.fileno())
    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    try:
        with orders.makefile("rb") as stream:
            _set_environment(pickle.load(stream))
            spawn.prepare(pickle.load(stream))
            itself = pickle.load(stream)
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
    return itself._bootstrap(parent_sentinel=sentinel)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})


class _Popen(popen_spawn_posix.Popen):
    """As multiprocessing's, but that the process is there already."""

    def _launch(self, process_obj: process.BaseProcess) -> None:
        global _waiting
        message = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            data = spawn.get_preparation_data(process_obj.name)
            data.pop("init_main_from_path", None)  # Ray's worker, which is no module of ours
            for part in (dict(os.environ), data, process_obj):
                reduction.dump(part, message)
        finally:
            context.set_spawning_popen(None)
        if _waiting is None or self._fds:
            self._fds: list[int] = []
            super()._launch(process_obj)  # type: ignore[misc]
            return
        waiting, _waiting = _waiting, None
        self.pid, self.sentinel = waiting.pid, waiting.sentinel
        self.finalizer = util.Finalize(self, waiting.close)
        socket.send_fds(waiting.orders, [b"\0"], [1, 2])
        waiting.orders.sendall(message.getbuffer())


class _Process(context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> popen_spawn_posix.Popen:
        return _Popen(process_obj)


class Context(context.SpawnContext):
    """The context of multiprocessing "spawn", but for its first process."""

    Process = _Process
