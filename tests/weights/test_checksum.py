"""The checksum against its formula, and what it must notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.weights import checksum as module
from sdpo.weights.checksum import checksum, combine

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64, torch.int8: torch.int8}


def formula(tensor: torch.Tensor) -> int:
    """The docstring, word by word, in Python's integers."""
    words = tensor.contiguous().view(-1).view(BITS[tensor.dtype]).tolist()
    total = sum(x * ((i * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64 | 1) for i, x in enumerate(words))
    return int(np.uint64(total % 2**64).astype(np.int64))


@pytest.mark.parametrize("dtype", list(BITS))
def test_formula(dtype):
    tensor = (torch.randn(7, 13, dtype=torch.float64) * 50).to(dtype)
    assert checksum(tensor) == formula(tensor)


def test_chunks_do_not_matter(monkeypatch):
    tensor = torch.randn(1000)
    expected = checksum(tensor)
    monkeypatch.setitem(module._CHUNK, "cpu", 64)
    assert checksum(tensor) == expected == formula(tensor)


def test_layout_does_not_matter():
    tensor = torch.randn(6, 9)
    assert checksum(tensor.T) == checksum(tensor.T.contiguous()) != checksum(tensor)


@settings(deadline=None)
@given(position=st.integers(0, 99), bit=st.integers(0, 31), seed=st.integers(0, 10))
def test_every_bit_counts(position, bit, seed):
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(seed))
    flipped = tensor.clone()
    flipped.view(torch.int32)[position] ^= -(2**31) if bit == 31 else 1 << bit
    assert checksum(flipped) != checksum(tensor)


@settings(deadline=None)
@given(first=st.integers(0, 99), second=st.integers(0, 99))
def test_exchanged_values_are_noticed(first, second):
    tensor = torch.randn(100, generator=torch.Generator().manual_seed(0))
    swapped = tensor.clone()
    swapped[[first, second]] = tensor[[second, first]]
    assert (checksum(swapped) == checksum(tensor)) == (first == second)


def test_empty():
    assert checksum(torch.empty(0)) == 0


def test_combined_checksum():
    one = combine({"a": 1, "b": -2})
    assert one == combine({"b": -2, "a": 1})
    assert len({one, combine({"a": -2, "b": 1}), combine({"a": 1}), combine({"a": 1, "b": 2})}) == 4
