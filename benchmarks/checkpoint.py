"""How long the loop waits for a checkpoint: written before it goes on, or copied and written behind its back.

    python -m benchmarks.checkpoint [--small]

Both sides write the same tensors with the writer of real checkpoints (`sdpo.checkpoints.slices`: serialised,
checksummed, fsynced) and seal the folder.  The asynchronous side copies them to memory, which is all that the loop
waits for, and writes in a thread; the time until that has ended is given too, since the next checkpoint waits for it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.common import Record, interleave, medians, parser
from sdpo.checkpoints.manifest import seal, verify
from sdpo.checkpoints.slices import SliceWriter

_ELEMENTS = 16 * 2**20  # of one tensor, 64 MiB


def main() -> None:
    args = parser(__doc__, repeats=3).parse_args()
    sizes = (0.0625,) if args.small else (1, 4)
    record, rows, found = Record("checkpoint", args), [], {}
    with tempfile.TemporaryDirectory(dir=".") as name:  # on a disk: the temporary folder may be memory
        for size in sizes:
            tensors = [torch.randn(_ELEMENTS) for _ in range(max(1, int(size * 2**30) // (4 * _ELEMENTS)))]
            samples = interleave(
                {
                    "synchronous": lambda tensors=tensors: synchronous(tensors, Path(name) / "checkpoint"),
                    "asynchronous": lambda tensors=tensors: asynchronous(tensors, Path(name) / "checkpoint"),
                },
                args.repeats,
            )
            found[str(size)] = samples
            for side, values in medians(samples).items():
                waits, written, verified = values["waits"], values["written"], values["verified"]
                numbers = (f"{waits:.2f}", f"{written:.2f}", f"{size / written:.2f}", f"{verified:.2f}")
                rows.append([f"{size:g} GiB, {side}", *numbers])
    notes = ["The disk is what takes the time; 100 GiB take 100 / (GiB/s) seconds, divided by the machines that write."]
    record.finish(
        ["state", "loop waits, s", "on the disk after, s", "GiB/s", "verified in, s"], rows, notes, samples=found
    )


def synchronous(tensors: list[torch.Tensor], folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    _write(tensors, folder)
    waited = time.perf_counter() - began
    return {"waits": waited, "written": waited, "verified": _verified(folder)}


def asynchronous(tensors: list[torch.Tensor], folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    copies = [tensor.clone() for tensor in tensors]
    thread = threading.Thread(target=_write, args=(copies, folder))
    thread.start()
    waited = time.perf_counter() - began
    thread.join()
    written = time.perf_counter() - began
    return {"waits": waited, "written": written, "verified": _verified(folder)}


def _write(tensors: list[torch.Tensor], folder: Path) -> None:
    writer = SliceWriter(folder, 0)
    for number, tensor in enumerate(tensors):
        writer.add("weight", str(number), tuple(tensor.shape), 0, tensor)
    seal(folder, writer.close({}))


def _verified(folder: Path) -> float:
    began = time.perf_counter()
    verify(folder)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


if __name__ == "__main__":
    main()
