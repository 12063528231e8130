"""How the threads of an operator wait for each other: asleep, so that a busy machine slows a run down in proportion.

torch's CPU builds compute with GNU's OpenMP (libgomp).  By itself a thread of it that is done spins for milliseconds
until the others are, which takes the core from the very thread that it waits for wherever another process wants one:
every operator then lasts as long as a turn of the kernel's scheduler.  `python -m benchmarks.busy` measures both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# With one of these the user has said how threads wait (GNU's, LLVM's and Intel's OpenMP).
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def waiting(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for a process that computes on CPUs, before it starts; none where the user has set one of `NAMES`."""
    return {} if any(name in environment for name in NAMES) else {"OMP_WAIT_POLICY": "passive"}
