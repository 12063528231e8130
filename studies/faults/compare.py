"""Whether two runs came to the same: every tensor of their last checkpoints, and every metric that no clock is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from sdpo.checkpoints.slices import SliceReader
from sdpo.tracking import RunFolder

KINDS = ("weight", "exp_avg", "exp_avg_sq", "average", "buffer")
_CLOCKS = ("time", "wall_clock_s", "throughput/", "utilization/", "memory/", "weights/pause_s")


def differences(whole: Path, struck: Path) -> list[str]:
    """What differs, bit for bit; nothing: the runs are equal."""
    last = Path("checkpoints", "last")
    return [*different_tensors(whole / last, struck / last), *_rows(whole, struck)]


def different_tensors(whole: Path, struck: Path) -> Iterator[str]:
    """Of two checkpoints, whoever wrote which slice."""
    ours, theirs = SliceReader(whole.resolve()), SliceReader(struck.resolve())
    for kind in KINDS:
        if ours.tensors(kind) != theirs.tensors(kind):
            yield f"names or shapes of {kind}"
            continue
        for name in ours.tensors(kind):
            if not torch.equal(ours.full(kind, name), theirs.full(kind, name)):
                yield f"{kind} of {name}"


def _rows(whole: Path, struck: Path) -> Iterator[str]:
    ours, theirs = RunFolder(whole).metrics, RunFolder(struck).metrics
    if [row["step"] for row in ours] != [row["step"] for row in theirs]:
        yield f"steps of metrics.jsonl: {len(ours)} rows and {len(theirs)}"
        return
    for a, b in zip(ours, theirs, strict=True):
        for name in sorted(a.keys() | b.keys()):
            if not name.startswith(_CLOCKS) and a.get(name) != b.get(name):
                yield f"{name} of step {a['step']}: {a.get(name)} and {b.get(name)}"
