"""vLLM's core as a process that has imported vLLM already: forked from the engine's (`forked_process`).

vLLM starts its core as a fresh Python, which imports again what the engine's process has imported: five to seven
seconds of a processor, one after the other.  Here stands all of vLLM that this takes and that vLLM promises nobody: the
modules of a core, and where it asks for the process.  Where a vLLM has none of it, it starts its core as ever;
tests/rollout/test_core_process.py then says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from sdpo.config.importing import uncollected
from sdpo.rollout import forked_process

TITLE = "VLLM::EngineCore"  # vLLM's own, by which users and tools find it
CORE = ("vllm.v1.executor.uniproc_executor", "vllm.v1.worker.cpu_worker")  # what a core on a CPU imports besides
STARTER, CONTEXT = "vllm.v1.engine.utils", "get_mp_context"  # its function there says how the core is started

import_seconds = 0.0  # that `prepare` took


def import_vllm() -> None:
    """The imports that take long, by themselves, so that progress can be shown."""
    with uncollected():
        import vllm.engine.arg_utils
        import vllm.v1.engine.async_llm  # noqa: F401


def prepare() -> None:
    """Import vLLM and what its core needs; then fork what waits to be the core."""
    global import_seconds
    began = time.monotonic()
    import_vllm()
    if starter() is not None:
        forked_process.fork(TITLE)
    import_seconds = time.monotonic() - began


def starter() -> ModuleType | None:
    """The module of vLLM that starts its core.  None: this vLLM does it in another way."""
    try:
        with uncollected():
            module, *_ = map(import_module, (STARTER, *CORE))
    except ImportError:
        return None
    return module if hasattr(module, CONTEXT) else None


@contextmanager
def forked_core() -> Iterator[None]:
    """Within it, vLLM starts its core as the process that waits, if there is one."""
    module = starter() if forked_process.is_waiting() else None
    if module is None:
        yield
        return
    usual = getattr(module, CONTEXT)
    setattr(module, CONTEXT, forked_process.Context)
    try:
        yield
    finally:
        setattr(module, CONTEXT, usual)
        forked_process.forget()  # if this vLLM has started its core in another way
