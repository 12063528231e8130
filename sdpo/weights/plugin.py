"""vLLM's plugin entry point (group `vllm.general_plugins`): it runs in every process of vLLM."""

from __future__ import annotations

from multiprocessing import parent_process

from sdpo.supervision.lifeline import die_with

BACKENDS = {
    "shared_memory": ("sdpo_shared_memory", "SharedMemoryEngine"),
    "nccl": ("sdpo_nccl", "VerifiedNCCLEngine"),
    "ipc": ("sdpo_ipc", "VerifiedIPCEngine"),
}


def backend_name(kind: str) -> str:
    """The name under which vLLM knows the receiving engine of a way of transfer."""
    return BACKENDS[kind][0]


def register() -> None:
    """Make our receiving engines known to vLLM's factory.  May be called several times in a process."""
    _die_with_the_engine()
    _keep_progress_bars_in_process()
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    modules = {
        "shared_memory": "sdpo.weights.receive",
        "nccl": "sdpo.weights.receive_gpu",
        "ipc": "sdpo.weights.receive_gpu",
    }
    for kind, (name, class_name) in BACKENDS.items():
        try:
            WeightTransferEngineFactory.register_engine(name, modules[kind], class_name)
        except ValueError:
            pass  # registered before in this process


def _die_with_the_engine() -> None:
    """A core or worker of vLLM whose engine was killed would live on, with its memory, and serve nobody."""
    if (parent := parent_process()) is not None and parent.pid is not None:
        die_with(parent.pid)


def _keep_progress_bars_in_process() -> None:
    """In a spawned process tqdm's lock is a named semaphore in /dev/shm, which stays there when the process is killed.
    No other process writes to these bars, so a lock between threads will do."""
    from threading import RLock

    from tqdm import tqdm

    tqdm.set_lock(RLock())
