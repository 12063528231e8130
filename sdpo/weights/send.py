"""Sends buckets through shared memory.  Needs neither vLLM nor a GPU in the learner's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from sdpo.weights.buckets import Bucket
from sdpo.weights.errors import WeightTransferError
from sdpo.weights.machine import this_machine
from sdpo.weights.shared_memory import Block, Entry, aligned


@dataclass(frozen=True)
class _Packed:
    path: str
    nbytes: int
    entries: list[dict[str, Any]]


class SharedMemorySender:
    """Two blocks in turn: one is filled while the engines load the other.  They are kept between publications."""

    def __init__(self) -> None:
        self._blocks = (Block(), Block())
        self._turn = 0
        self._engines: list[ActorHandle] = []

    def connect(self, engines: list[ActorHandle], infos: list[Any]) -> None:
        here = this_machine()
        if any(info.machine != here for info in infos):
            raise WeightTransferError(
                "Weights cross shared memory within one machine only, but an engine runs on another one than learner "
                "rank 0. Run the cpu profile on one machine, or use GPUs."
            )
        self._engines = engines

    def drop(self, engine: ActorHandle) -> None:
        self._engines = [other for other in self._engines if other != engine]

    def prepare(self, bucket: Bucket) -> _Packed:
        entries = []
        offset = 0
        for name, tensor in bucket:
            dtype = str(tensor.dtype).removeprefix("torch.")
            entries.append(Entry(name, dtype, tuple(tensor.shape), offset))
            offset += aligned(tensor.numel() * tensor.element_size())
        block = self._blocks[self._turn]
        self._turn = 1 - self._turn
        block.reserve(max(offset, 1))
        for entry, (_, tensor) in zip(entries, bucket, strict=True):
            block.write(entry.offset, tensor)
        return _Packed(block.path, block.capacity, [entry.as_dict() for entry in entries])

    def send(self, prepared: _Packed) -> dict[ActorHandle, ray.ObjectRef]:
        info = {"path": prepared.path, "nbytes": prepared.nbytes, "entries": prepared.entries}
        return {engine: engine.update_weights.remote(info) for engine in self._engines}

    def close(self) -> None:
        for block in self._blocks:
            block.close()
