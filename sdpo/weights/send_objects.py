"""Sends buckets through Ray's object store: to any machine of the cluster, whatever device the tensors lie on.

Slower than what engines get (a copy in host memory on either side), and without a process group: who receives may be
replaced at any time.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from sdpo.weights.arrays import as_array, as_tensor
from sdpo.weights.buckets import Bucket


class ObjectSender:
    """Every bucket is an object; it is gone when the last of the receivers has loaded it."""

    def __init__(self) -> None:
        self._receivers: list[ActorHandle] = []

    def connect(self, engines: list[ActorHandle], infos: list[Any]) -> None:
        self._receivers = engines

    def drop(self, engine: ActorHandle) -> None:
        self._receivers = [other for other in self._receivers if other != engine]

    def prepare(self, bucket: Bucket) -> ray.ObjectRef:
        return ray.put([(name, str(tensor.dtype).removeprefix("torch."), as_array(tensor)) for name, tensor in bucket])

    def send(self, prepared: ray.ObjectRef) -> dict[ActorHandle, ray.ObjectRef]:
        return {receiver: receiver.update_weights.remote(prepared) for receiver in self._receivers}

    def close(self) -> None:
        pass


def received(objects: list[tuple[str, str, Any]]) -> Bucket:
    """Copies of what was sent."""
    return [(name, as_tensor(array, getattr(torch, dtype))) for name, dtype, array in objects]
