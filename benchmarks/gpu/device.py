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


def measure(device: torch.device, work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and on CUDA the peak of allocated bytes beyond what was allocated before."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - began, "peak_bytes": 0}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return {"seconds": start.elapsed_time(end) / 1000, "peak_bytes": torch.cuda.max_memory_allocated() - before}


def matmul_limit(device: torch.device, size: int, repeats: int = 20) -> float:
    """FLOP/s of a large square product in bfloat16: what the device does at best."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(repeats):
            a @ b

    products()  # the clock comes up
    return 2 * size**3 * repeats / measure(device, products)["seconds"]
