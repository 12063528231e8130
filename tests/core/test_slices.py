"""Tensors in slices: whatever cut wrote them, every other cut reads them, and nothing but a whole tiling is taken."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.checkpoints.manifest import Damaged, measure
from sdpo.checkpoints.slices import SliceReader, SliceWriter

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float16, torch.uint8)


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def random_tensor(shape, dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, tuple(shape), generator=generator).to(dtype)


@st.composite
def written(draw):
    """(shape, dtype, the places where it is cut, which rank writes each piece, bytes of a file)"""
    shape = draw(st.lists(st.integers(0, 7), max_size=4))
    numel = math.prod(shape)
    cuts = sorted(draw(st.lists(st.integers(0, numel), max_size=5)))
    pieces = list(zip([0, *cuts], [*cuts, numel], strict=True))
    ranks = draw(st.permutations(range(len(pieces))))
    return tuple(shape), draw(st.sampled_from(DTYPES)), pieces, ranks, draw(st.sampled_from([1, 40, 10**6]))


@given(tensors=st.lists(written(), min_size=1, max_size=4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_is_read_by_any_other(tensors, data):
    wanted = {f"layers.{i}.weight": random_tensor(t[0], t[1], i) for i, t in enumerate(tensors)}
    with tempfile.TemporaryDirectory() as name:
        checkpoint, records = Path(name), {}
        for rank in range(6):
            writer = SliceWriter(checkpoint, rank, file_bytes=tensors[0][4])
            for (name, tensor), (shape, _, pieces, ranks, _) in zip(wanted.items(), tensors, strict=True):
                for (begin, end), writes in zip(pieces, ranks, strict=True):
                    # what is empty has one slice, of the first rank
                    if writes == rank and (end > begin or (not tensor.numel() and begin == 0 and writes == 0)):
                        writer.add("weight", name, shape, begin, tensor.reshape(-1)[begin:end])
            records |= writer.close({name: 3 for name in wanted})
        assert {path: measure(checkpoint / path) for path in records} == records

        reader = SliceReader(checkpoint)
        kept = {n: t for n, t in wanted.items() if n in reader.tensors("weight")}
        assert set(wanted) - set(kept) <= {n for n, t in wanted.items() if not t.numel()}
        assert reader.tensors("weight") == {n: (tuple(t.shape), t.dtype) for n, t in kept.items()}
        assert reader.steps == dict.fromkeys(wanted, 3) and reader.tensors("average") == {}
        for name, tensor in kept.items():
            assert torch.equal(reader.full("weight", name), tensor)
            begin = data.draw(st.integers(0, tensor.numel()))
            end = data.draw(st.integers(begin, tensor.numel()))
            assert torch.equal(reader.read("weight", name, begin, end - begin), tensor.reshape(-1)[begin:end])


def write(checkpoint: Path, *slices: tuple[int, tuple[int, ...], int, int, torch.dtype]) -> Path:
    """(rank, shape, offset, length, dtype) of slices of one tensor."""
    for rank, shape, offset, length, dtype in slices:
        writer = SliceWriter(checkpoint, rank)
        writer.add("weight", "w", shape, offset, torch.ones(length, dtype=dtype))
        writer.close({"w": 1})
    return checkpoint


F32 = torch.float32


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ([(0, (4, 3), 0, 6, F32)], "hold 6 of 12 elements"),
        ([(0, (4, 3), 0, 6, F32), (1, (4, 3), 7, 5, F32)], "gap or overlap at element 6"),
        ([(0, (4, 3), 0, 6, F32), (1, (4, 3), 5, 7, F32)], "gap or overlap at element 5"),
        ([(0, (4, 3), 0, 6, F32), (1, (3, 4), 6, 6, F32)], "different shapes or dtypes"),
        ([(0, (4, 3), 0, 6, F32), (1, (4, 3), 6, 6, torch.float64)], "different shapes or dtypes"),
        ([(0, (4, 3), 0, 13, F32)], "hold 13 of 12"),
        ([(0, (4, 3), 3, 9, F32)], "gap or overlap at element 0"),
    ],
)
def test_slices_that_do_not_make_up_the_tensor_are_refused(tmp_path, slices, said):
    with pytest.raises(Damaged, match=said):
        SliceReader(write(tmp_path, *slices))


def change(index: Path, **values) -> None:
    content = json.loads(index.read_text())
    content["slices"][0].update(values)
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "values",
    [
        {"file": "../rank-00000-00000.safetensors"},
        {"file": "/etc/passwd"},
        {"file": "payload.pt"},
        {"dtype": "Tensor"},
        {"dtype": "nowhere"},
        {"offset": -1},
        {"length": "12"},
        {"shape": [12.5]},
        {"shape": None},
        {"more": 1},
    ],
)
def test_an_index_of_somebody_else_leads_nowhere(tmp_path, values):
    write(tmp_path, (0, (12,), 0, 12, F32))
    change(tmp_path / "state" / "rank-00000.json", **values)
    with pytest.raises(Damaged):
        SliceReader(tmp_path)


@pytest.mark.parametrize("values", [{"dtype": "float64"}, {"name": "other"}, {"file": "rank-00000-00007.safetensors"}])
def test_a_file_that_is_not_as_its_index_says_is_refused_when_it_is_read(tmp_path, values):
    write(tmp_path, (0, (12,), 0, 12, F32))
    change(tmp_path / "state" / "rank-00000.json", **values)
    reader = SliceReader(tmp_path)
    with pytest.raises(Damaged, match="safetensors"):
        reader.full("weight", values.get("name", "w"))


def test_no_slices_at_all(tmp_path):
    with pytest.raises(Damaged, match="rank-00000.json is missing"):
        SliceReader(tmp_path)


def test_a_rank_writes_several_files_rather_than_hold_everything_twice(tmp_path):
    writer = SliceWriter(tmp_path, 0, file_bytes=100)
    for i in range(5):
        writer.add("weight", str(i), (20,), 0, torch.full((20,), float(i)))
    files = [name for name in writer.close({}) if name.endswith("safetensors")]
    assert len(files) == 3  # 80 bytes each: two and two and one
    reader = SliceReader(tmp_path)
    assert all(torch.equal(reader.full("weight", str(i)), torch.full((20,), float(i))) for i in range(5))
