"""How long a call may take, by what such calls took so far."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """max(floor, factor × the longest of its kind); `first` for a kind that was never seen.  Seconds."""

    floor: float
    factor: float
    first: float

    def of(self, longest: float | None) -> float:
        return max(self.floor, self.first if longest is None else self.factor * longest)


LEAST_SHARE = 0.05  # however busy the machine is: what hangs must be given up some time


def own_share(runnable: int, cores: int) -> float:
    """The share of a core that each of `runnable` threads gets: on a busy machine everything takes that much longer."""
    return max(LEAST_SHARE, min(1.0, cores / max(runnable, 1)))


def machine_share() -> float:
    """`own_share` of this machine at this moment; 1 where the kernel does not say."""
    try:
        with open("/proc/loadavg") as file:
            runnable = int(file.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1.0
    return own_share(runnable, os.cpu_count() or 1)
