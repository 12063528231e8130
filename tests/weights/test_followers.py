"""Learner ranks beside rank 0: all gather, and over CUDA IPC each offers its copy to the engine on its own GPU."""

from __future__ import annotations

import pytest
import torch

from sdpo.weights import publisher
from sdpo.weights.publisher import Publisher

WEIGHTS = [(f"layer.{i}", torch.full((10,), float(i))) for i in range(5)]


class Sender:
    """The protocol's shape and no transfer: what a GPU is needed for."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []

    def connect(self, engines, infos) -> None:
        pass

    def prepare(self, bucket):
        return bucket

    def send(self, prepared):
        self.sent.append([name for name, _ in prepared])
        return {}

    def drop(self, engine) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["nccl", "ipc"])
def test_a_rank_offers_its_buckets_where_its_gpu_has_an_engine(kind, monkeypatch):
    sender = Sender()
    monkeypatch.setattr(publisher, "_make_sender", lambda *_: sender)
    monkeypatch.setattr(Publisher, "_all", lambda self, method, *_: [Info(kind)] if method == "describe" else [])
    other = Publisher(kind, bucket_bytes=80, rank=1)
    report = other.publish(iter(WEIGHTS), ["an engine"], version=1)  # type: ignore[list-item]
    assert (report.tensors, report.buckets, report.bytes) == (5, 3, 200)
    wanted = [["layer.0", "layer.1"], ["layer.2", "layer.3"], ["layer.4"]] if kind == "ipc" else []
    assert sender.sent == wanted


class Info:
    dtype = "float32"

    def __init__(self, kind: str) -> None:
        self.weight_transfer = kind
