"""The receiving side in vLLM's workers: verified updates, and the shared-memory engine for CPUs.

A weight update is: `start_weight_update`, `update_weights` once per bucket, `update_weights` with the learner's list of
checksums, `finish_weight_update`.  Without a list that agrees, the update cannot be finished.  `update_weights` with a
reason to abandon it ends an update that cannot be completed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from sdpo.weights import shared_memory
from sdpo.weights.errors import WeightTransferError
from sdpo.weights.ledger import Ledger, Tap, aliases


class VerifiedUpdates:
    """Mixin in front of one of vLLM's weight-transfer engines: what goes into `load_weights` is accounted for."""

    _ledger: Ledger | None = None
    _open = False
    _tied: dict[str, list[str]] | None = None

    def start_weight_update(self) -> None:
        if self._tied is None:
            self._tied = aliases(self.model)  # type: ignore[attr-defined]
        if self._open:
            # The last update broke off.  Layers that it left half-loaded must not count what they got then towards this
            # one; finalizing brings them back to a defined state, and this update overwrites all of them.
            finalize_layerwise_reload(self.model, self.model_config)  # type: ignore[attr-defined]
        self._ledger = Ledger()
        self._open = True
        super().start_weight_update()  # type: ignore[misc]

    def update_weights(self, update_info: dict[str, Any]) -> None:
        if "abandon" in update_info:
            # vLLM has no call for this, but an update that raises is over for its worker, and a new one may start.
            raise WeightTransferError(f"The update was abandoned: {update_info['abandon']}")
        if "checksums" in update_info:
            assert self._ledger is not None
            parameters = [name for name, _ in self.model.named_parameters()]  # type: ignore[attr-defined]
            self._ledger.verify(update_info["checksums"], parameters)
            return
        super().update_weights(update_info)  # type: ignore[misc]

    def receive_weights(self, update_info: Any) -> None:
        model = self.model  # type: ignore[has-type]
        self.model = Tap(model, self._ledger, self._tied)
        try:
            super().receive_weights(update_info)  # type: ignore[misc]
        finally:
            self.model = model

    def finish_weight_update(self) -> None:
        if self._ledger is None or not self._ledger.verified:
            raise WeightTransferError("The update cannot be finished: its checksums were not verified.")
        super().finish_weight_update()  # type: ignore[misc]
        self._open = False


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """One bucket: where it lies, and what is in it (`sdpo.weights.shared_memory.Entry`)."""

    path: str
    nbytes: int
    entries: list[dict[str, Any]] = field(default_factory=list)


class _SharedMemory(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Reads buckets from the learner's memory.  vLLM's CPU build repacks weights after loading and frees the originals,
    so they must be loaded through its layerwise reload, which restores, loads and repacks layer by layer."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        _prepare_experts(self.model)
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class synchronises an accelerator, of which a CPU has none.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        self.model.load_weights(shared_memory.read(update_info.path, update_info.nbytes, update_info.entries))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        pass


def _prepare_experts(model: torch.nn.Module) -> None:
    """Let vLLM repack reloaded experts.

    On a CPU experts are repacked where their kernel is made, and only when there is none yet: while one is kept, vLLM
    takes an update for a copy of weights that need no further work, which holds for the layouts of GPUs.
    """
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


class SharedMemoryEngine(VerifiedUpdates, _SharedMemory):
    """Shared memory between processes of one machine, verified."""
