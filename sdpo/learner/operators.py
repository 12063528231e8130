"""What a profile of the learner says: its operators by the time that they take themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operator:
    """`seconds`: without what it calls; on a GPU the time of its kernels."""

    name: str
    calls: int
    seconds: float


def costliest(averages: Iterable[Any], count: int) -> tuple[list[Operator], float]:
    """The `count` longest of `torch.profiler`'s key_averages(), and the seconds of all together."""
    found = list(averages)
    on_gpu = any(event.self_device_time_total > 0 for event in found)
    operators = [
        Operator(e.key, e.count, (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1e6) for e in found
    ]
    operators.sort(key=lambda o: -o.seconds)
    return operators[:count], sum(o.seconds for o in operators)
