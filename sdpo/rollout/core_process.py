"""vLLM's core as a process that has imported vLLM already: forked from the engine's, while that has a single thread.

vLLM starts its core as a fresh Python, which imports again what the engine's process has imported: six seconds of a
core, one after the other.  `prepare` imports first and then forks a process that waits; `forked_core` lets vLLM's
next core be that one.  Whoever forks must have no other thread, so that this is done before Ray's worker begins
(`sdpo.rollout.worker_process`); with threads nothing is forked, and vLLM starts its core as ever.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import context, popen_spawn_posix, process, reduction, spawn, util
from typing import Any

from sdpo.config.importing import uncollected
from sdpo.supervision.lifeline import die_with


@dataclass
class _Waiting:
    """The process that waits to be told what it is."""

    pid: int
    orders: socket.socket
    sentinel: int  # readable when it has ended


_waiting: _Waiting | None = None
import_seconds = 0.0  # that `prepare` took


def import_vllm() -> None:
    """The imports that take long, by themselves, so that progress can be shown."""
    with uncollected():
        import vllm.engine.arg_utils
        import vllm.v1.engine.async_llm  # noqa: F401


def _import_core() -> None:
    """What vLLM's core imports besides, on a CPU."""
    with uncollected():
        import vllm.v1.executor.uniproc_executor
        import vllm.v1.worker.cpu_worker  # noqa: F401


def prepare() -> None:
    """Import vLLM and all that its core needs; then fork what waits to be the core, if no other thread is there."""
    global _waiting, import_seconds
    began = time.monotonic()
    import_vllm()
    _import_core()
    import_seconds = time.monotonic() - began
    if len(os.listdir("/proc/self/task")) > 1:
        return
    from vllm.utils.system_utils import set_process_title

    gc.freeze()  # the core's collections would copy each page that they look at
    ours, theirs = socket.socketpair()
    ended, alive = os.pipe()
    parent = os.getpid()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            ours.close()
            os.close(ended)
            die_with(parent)
            set_process_title("EngineCore")  # which looks for its room beside the environment, changed later
            code = _wait(theirs)
        finally:
            os._exit(code)
    gc.unfreeze()
    theirs.close()
    os.close(alive)
    _waiting = _Waiting(pid, ours, ended)


def _wait(orders: socket.socket) -> int:
    """Become what the parent says; returns its exit status."""
    message, descriptors, *_ = socket.recv_fds(orders, 1, 2)
    if not message:  # the parent needs no core, or has ended
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
            core = pickle.load(stream)
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
    return core._bootstrap(parent_sentinel=sentinel)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})


class _Popen(popen_spawn_posix.Popen):
    """As multiprocessing's, but that the process is there already."""

    def _launch(self, process_obj: process.BaseProcess) -> None:
        global _waiting
        assert _waiting is not None
        waiting, _waiting = _waiting, None
        message = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            data = spawn.get_preparation_data(process_obj.name)
            data.pop("init_main_from_path", None)  # Ray's worker, which is no module of ours
            for part in (dict(os.environ), data, process_obj):
                reduction.dump(part, message)
        finally:
            context.set_spawning_popen(None)
        self.pid, self.sentinel = waiting.pid, waiting.sentinel
        self.finalizer = util.Finalize(self, _close, (waiting,))
        socket.send_fds(waiting.orders, [b"\0"], [1, 2])
        waiting.orders.sendall(message.getbuffer())


def _close(waiting: _Waiting) -> None:
    waiting.orders.close()
    os.close(waiting.sentinel)


class _Core(context.SpawnProcess):
    """To vLLM, a process that it starts."""

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> popen_spawn_posix.Popen:
        return _Popen(process_obj) if _waiting is not None else context.SpawnProcess._Popen(process_obj)


class _Context(context.SpawnContext):
    Process = _Core


@contextmanager
def forked_core() -> Iterator[None]:
    """Within it, vLLM starts its core as the process that waits, if there is one."""
    import vllm.v1.engine.utils as engines

    usual: Any = engines.get_mp_context
    if _waiting is not None:
        engines.get_mp_context = _Context
    try:
        yield
    finally:
        engines.get_mp_context = usual
