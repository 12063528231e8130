"""Tensors by name, each in slices: whoever holds elements [offset, offset + length) of the flat tensor writes these.

state/rank-00000.json                which slices rank 0 wrote, of tensors of which shape, into which files
state/rank-00000-00000.safetensors   … the slices, one-dimensional, under kind/name

Any number of readers may want any other cut: `SliceReader.read` puts together what a slice of theirs needs, and no
more of it is read.  A tensor's slices must cover it once: no gap, no overlap.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from safetensors.torch import save

from sdpo.checkpoints.durable import sync_folder, write_file
from sdpo.checkpoints.manifest import Damaged, FileRecord, Records

FOLDER = "state"
_FILE_BYTES = 256 * 2**20  # a writer holds about three times as much in memory
_INDEX = re.compile(r"rank-\d{5}\.json")
Sort = tuple[tuple[int, ...], torch.dtype]
_DATA = re.compile(r"rank-\d{5}-\d{5}\.safetensors")


class Slice(BaseModel):
    """Elements [offset, offset + length) of the flattened tensor `name`, of what `kind` there is of it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    kind: str
    name: str
    shape: list[NonNegativeInt]  # of the whole tensor
    offset: NonNegativeInt
    length: NonNegativeInt
    dtype: str  # torch's name
    file: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


class Index(BaseModel):
    """`steps`: of each parameter that the optimiser has moved, how often."""

    model_config = ConfigDict(extra="forbid", strict=True)
    slices: list[Slice]
    steps: dict[str, NonNegativeInt]


class SliceWriter:
    """The slices of one rank, below `checkpoint`/state.  Files are on the disk when `close` returns.

    later: `add` only copies, and `close`, which any thread may call, writes everything.
    """

    def __init__(self, checkpoint: Path, rank: int, file_bytes: int = _FILE_BYTES, later: bool = False) -> None:
        self._folder, self._rank, self._file_bytes, self._later = checkpoint / FOLDER, rank, file_bytes, later
        self._folder.mkdir(parents=True, exist_ok=True)
        self._slices: list[Slice] = []
        self._waiting: dict[str, torch.Tensor] = {}  # of the file that is being filled
        self._filled: list[dict[str, torch.Tensor]] = []
        self._number = 0
        self._records: Records = {}

    def add(self, kind: str, name: str, shape: tuple[int, ...], offset: int, values: torch.Tensor) -> None:
        """`values`: elements [offset, offset + len(values)) of the flattened tensor; none are left out."""
        if not values.numel() and math.prod(shape):
            return
        own = values.detach().reshape(-1).to("cpu", copy=True)
        entry = Slice(
            kind=kind,
            name=name,
            shape=list(shape),
            offset=offset,
            length=own.numel(),
            dtype=str(own.dtype).removeprefix("torch."),
            file=f"rank-{self._rank:05d}-{self._number:05d}.safetensors",
        )
        self._slices.append(entry)
        self._waiting[entry.key] = own
        if sum(tensor.nbytes for tensor in self._waiting.values()) >= self._file_bytes:
            self._fill()
            if not self._later:
                self._flush()

    def close(self, steps: Mapping[str, int]) -> Records:
        """Write what is left, and the index.  Returns what was written."""
        self._fill()
        self._flush()
        index = Index(slices=self._slices, steps=dict(steps))
        self._write(f"rank-{self._rank:05d}.json", index.model_dump_json(indent=1).encode())
        sync_folder(self._folder)
        return self._records

    def _fill(self) -> None:
        """The next slice goes into the next file."""
        if self._waiting:
            self._filled.append(self._waiting)
            self._waiting = {}
            self._number += 1

    def _flush(self) -> None:
        first = self._number - len(self._filled)
        for number in range(first, self._number):  # let go of one before the next
            self._write(f"rank-{self._rank:05d}-{number:05d}.safetensors", save(self._filled.pop(0)))

    def _write(self, name: str, data: bytes) -> None:
        write_file(self._folder / name, data)
        self._records[f"{FOLDER}/{name}"] = FileRecord.of(data)


class SliceReader:
    """All tensors of a checkpoint, whoever wrote their slices.

    Raises:
        Damaged: the slices of a tensor do not make it up, or contradict each other.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._folder = checkpoint / FOLDER
        self._slices: dict[tuple[str, str], list[Slice]] = defaultdict(list)
        self._open: dict[str, Any] = {}
        self.steps: dict[str, int] = {}
        names = sorted(path.name for path in self._folder.glob("*.json") if _INDEX.fullmatch(path.name))
        if not names:
            raise Damaged(f"{FOLDER}/rank-00000.json is missing")
        for name in names:
            self._take(name)
        for parts in self._slices.values():
            _check_tiling(parts)

    def tensors(self, kind: str) -> dict[str, Sort]:
        """Shape and dtype of each tensor of a kind, by name."""
        found = {name: parts[0] for (k, name), parts in self._slices.items() if k == kind}
        return {name: (tuple(part.shape), getattr(torch, part.dtype)) for name, part in found.items()}

    def read(self, kind: str, name: str, offset: int, length: int) -> torch.Tensor:
        """[length]: elements [offset, offset + length) of the flattened tensor."""
        parts = self._slices[kind, name]
        out = torch.empty(length, dtype=getattr(torch, parts[0].dtype))
        for part in parts:
            begin, end = max(offset, part.offset), min(offset + length, part.offset + part.length)
            if begin < end:
                out[begin - offset : end - offset] = self._stored(part)[begin - part.offset : end - part.offset]
        return out

    def full(self, kind: str, name: str) -> torch.Tensor:
        shape = self._slices[kind, name][0].shape
        return self.read(kind, name, 0, math.prod(shape)).reshape(shape)

    def _take(self, name: str) -> None:
        try:
            index = Index.model_validate_json((self._folder / name).read_bytes())
        except (ValidationError, json.JSONDecodeError, OSError) as error:
            raise Damaged(f"{FOLDER}/{name} is not an index of slices ({str(error).splitlines()[0]})") from None
        for part in index.slices:
            if not _DATA.fullmatch(part.file) or not isinstance(getattr(torch, part.dtype, None), torch.dtype):
                raise Damaged(f"{FOLDER}/{name} names the file {part.file!r} or the dtype {part.dtype!r}")
            self._slices[part.kind, part.name].append(part)
        for parameter, step in index.steps.items():
            if self.steps.setdefault(parameter, step) != step:
                raise Damaged(
                    f"{FOLDER}/{name} says {step} steps of {parameter}, another index {self.steps[parameter]}"
                )

    def _stored(self, part: Slice) -> Any:
        """The slice as it lies in its file, which is read where it is indexed."""
        try:
            if part.file not in self._open:
                self._open[part.file] = safetensors.safe_open(self._folder / part.file, framework="pt")
            stored = self._open[part.file].get_slice(part.key)
            same = stored.get_shape() == [part.length] and stored.get_dtype() == _SAFETENSORS[part.dtype]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise Damaged(f"{FOLDER}/{part.file} does not give {part.key} ({error})") from None
        if not same:
            raise Damaged(f"{FOLDER}/{part.file} holds {part.key} in another shape or dtype than its index says")
        return stored


_SAFETENSORS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def _check_tiling(parts: list[Slice]) -> None:
    first, end = parts[0], 0
    for part in sorted(parts, key=lambda part: part.offset):
        if (part.shape, part.dtype) != (first.shape, first.dtype):
            raise Damaged(f"the slices of {first.key} are of tensors of different shapes or dtypes")
        if part.offset != end:
            raise Damaged(f"the slices of {first.key} leave a gap or overlap at element {min(end, part.offset):,}")
        end += part.length
    if end != math.prod(first.shape):
        raise Damaged(f"the slices of {first.key} hold {end:,} of {math.prod(first.shape):,} elements")
