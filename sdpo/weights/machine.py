"""Which machine a process is on."""

from __future__ import annotations

import os
from pathlib import Path


def this_machine() -> str:
    """What processes must have in common to reach each other's memory: the kernel, and its numbers of processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
