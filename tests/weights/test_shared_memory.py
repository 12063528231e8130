"""Blocks of shared memory between processes, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from sdpo.weights.errors import WeightTransferError
from sdpo.weights.shared_memory import Block, Entry, aligned, read


def pack(block: Block, tensors: dict[str, torch.Tensor]) -> list[dict]:
    entries, offset = [], 0
    for name, tensor in tensors.items():
        entries.append(Entry(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), offset).as_dict())
        offset += aligned(tensor.numel() * tensor.element_size())
    block.reserve(max(offset, 1))
    for entry, tensor in zip(entries, tensors.values(), strict=True):
        block.write(entry["offset"], tensor)
    return entries


TENSORS = {
    "a": torch.randn(3, 5),
    "b": torch.randn(7).bfloat16(),
    "empty": torch.empty(0, 4),
    "c": torch.arange(10),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
}


def test_round_trip_in_one_process():
    block = Block()
    entries = pack(block, TENSORS)
    for name, tensor in read(block.path, block.capacity, entries):
        assert torch.equal(tensor, TENSORS[name]) and tensor.dtype == TENSORS[name].dtype
    block.close()


def test_what_was_read_does_not_change_with_the_block():
    block = Block()
    entries = pack(block, {"w": torch.ones(100)})
    ((_, tensor),) = read(block.path, block.capacity, entries)
    block.write(0, torch.zeros(100))
    assert tensor.sum() == 100
    block.close()


def test_a_block_grows_and_shrinks_never():
    block = Block()
    pack(block, {"w": torch.ones(10)})
    entries = pack(block, {"w": torch.arange(10_000)})
    capacity = block.capacity
    ((_, tensor),) = read(block.path, capacity, entries)
    assert torch.equal(tensor, torch.arange(10_000))
    pack(block, {"w": torch.ones(10)})
    assert block.capacity == capacity
    block.close()


def test_nothing_stays_of_a_killed_writer(tmp_path):
    """SIGKILL leaves no time to clean up; the kernel does it."""
    program = textwrap.dedent("""
        import sys, time, torch
        from sdpo.weights.shared_memory import Block
        block = Block()
        block.reserve(1 << 20)
        block.write(0, torch.arange(1000))
        print(block.path, flush=True)
        time.sleep(600)
    """)
    before = set(os.listdir("/dev/shm"))
    root = Path(__file__).parents[2]
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    path = writer.stdout.readline().strip()
    entry = Entry("w", "int64", (1000,), 0).as_dict()
    ((_, tensor),) = read(path, 1 << 20, [entry])
    assert torch.equal(tensor, torch.arange(1000))
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "sdpo" in name}
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with pytest.raises(WeightTransferError, match="the learner has ended"):
        read(path, 1 << 20, [entry])


def test_closing_twice_is_harmless():
    block = Block()
    block.reserve(100)
    block.close()
    block.close()
    assert block.capacity == 0
