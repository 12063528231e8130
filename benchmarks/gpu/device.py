"""Time and memory on a CUDA device; with --small also on a CPU, where it shows that a script runs and nothing else."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def choose(args: argparse.Namespace) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if args.small:
        return torch.device("cpu")
    sys.exit("error: torch sees no GPU; --small runs on a CPU, to check the script")


class Meter:
    """From its making to `read`: seconds, and on CUDA the peak of allocated bytes beyond what was allocated before."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
        self.began = time.perf_counter()

    def read(self) -> dict[str, float]:
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.began
        return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() - self.before if self.on_gpu else 0}


def measure(device: torch.device, work: Callable[[], Any]) -> dict[str, float]:
    """What a `Meter` reads of the work.  On CUDA the time is that between two events on the device."""
    meter = Meter(device)
    if not meter.on_gpu:
        work()
        return meter.read()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    return meter.read() | {"seconds": start.elapsed_time(end) / 1000}


def matmul_limit(device: torch.device, size: int, repeats: int = 20) -> float:
    """FLOP/s of a large square product in bfloat16: what the device does at best."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(repeats):
            a @ b

    products()  # the clock comes up
    return 2 * size**3 * repeats / measure(device, products)["seconds"]
