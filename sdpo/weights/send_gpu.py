"""Sends buckets between GPUs through vLLM's own trainer-side engines: NCCL broadcast, or CUDA IPC on shared GPUs.

vLLM's `send_weights` drives a whole update.  Here it sends one bucket: start, checksums and finish belong to the
publisher, which does them once for all buckets.  vLLM is imported in the learner's process only when this way is used.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Literal

import ray
import torch
from ray.actor import ActorHandle
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from sdpo.errors import PartFailed
from sdpo.weights.buckets import Bucket


class BucketSource(WeightSource):
    """The tensors of one bucket, which lie in this process's GPU memory."""

    def __init__(self) -> None:
        self.bucket: Bucket = []

    def metadata(self) -> list[ParamMeta]:
        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.bucket]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.bucket)


def rank_offsets(workers: list[int]) -> list[int]:
    """First rank of each engine in the transfer group, given its number of workers.  Rank 0 is the learner."""
    return [1 + sum(workers[:index]) for index in range(len(workers))]


class Engines:
    """The control plane that vLLM's trainer-side engines expect (`VLLMWeightSyncClient`), over all rollout engines.

    Args:
        workers: tensor-parallel size of each engine.
    """

    def __init__(self, handles: list[ActorHandle], workers: list[int]) -> None:
        self._handles = handles
        self._offsets = rank_offsets(workers)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        calls = []
        for handle, offset in zip(self._handles, self._offsets, strict=True):
            own = init_info | {"rank_offset": offset} if "rank_offset" in init_info else init_info
            calls.append(handle.init_weight_transfer_engine.remote(own))
        ray.get(calls)

    def start_weight_update(self) -> None:
        """Done by the publisher, once for all buckets."""

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        ray.get([handle.update_weights.remote(update_info) for handle in self._handles])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Done by the publisher, after the checksums agree."""


class GpuSender:
    """NCCL: called in learner rank 0.  IPC: called in every learner rank, each of which offers its copy to the worker
    on its own GPU; the ranks must be the default process group, and their buckets the same."""

    def __init__(self, kind: Literal["nccl", "ipc"], bucket_bytes: int, rank: int) -> None:
        self._kind = kind
        self._bucket_bytes = bucket_bytes
        self._rank = rank
        self._source = BucketSource()
        self._trainer: Any = None

    def connect(self, engines: list[ActorHandle], infos: list[Any]) -> None:
        workers = [info.tensor_parallel_size for info in infos]
        if self._kind == "nccl":
            init: Any = NCCLTrainerInitInfo(
                master_address=ray.util.get_node_ip_address(),
                master_port=_free_port(),
                world_size=1 + sum(workers),
                packed=True,
                packed_buffer_size_bytes=self._bucket_bytes,
                rank=self._rank,
            )
        else:
            init = IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=self._bucket_bytes, rank=self._rank)
        self._trainer = WeightTransferTrainerFactory.trainer_init(
            init, client=Engines(engines, workers), source=self._source
        )

    def prepare(self, bucket: Bucket) -> Bucket:
        return bucket

    def drop(self, engine: ActorHandle) -> None:
        """A communicator with a hole cannot go on: the publication fails, and the learner starts anew."""
        raise PartFailed("the weight transfer", f"an engine was lost during a publication by {self._kind}", "publish")

    def send(self, prepared: Bucket) -> dict[ActorHandle, ray.ObjectRef]:
        """Blocks until the engines have loaded the bucket: broadcast and loading meet inside the same NCCL calls."""
        self._source.bucket = prepared
        if self._kind == "ipc":
            # The buffer that is shared must hold the bucket, also when one tensor alone exceeds the bound.
            nbytes = sum(tensor.numel() * tensor.element_size() for _, tensor in prepared)
            self._trainer.packed_buffer_size_bytes = max(nbytes, 1)
        try:
            self._trainer.send_weights()
        finally:
            self._source.bucket = []
        return {}

    def close(self) -> None:
        if self._trainer is not None:
            self._trainer.shutdown()
            self._trainer = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
