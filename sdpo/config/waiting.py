"""How the threads of an operator wait for each other: asleep.

torch's CPU builds compute with GNU's OpenMP (libgomp), in the learner and in vLLM's core alike.  By itself a thread of
it that is done spins until the others are, which where another process wants a core may keep the very thread from it
that is waited for: a learner's step with two threads took 46 × as long beside one busy process.
`python -m benchmarks.busy` measures both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# With one of these the user has said how threads wait (GNU's, LLVM's and Intel's OpenMP).
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def waiting(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for a process that computes on CPUs, before it starts; none where the user has set one of `NAMES`."""
    return {} if any(name in environment for name in NAMES) else {"OMP_WAIT_POLICY": "passive"}
