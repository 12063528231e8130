"""The peak of this process's resident set, from Linux's /proc."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

MIB = 2**20


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the peak since the last `reset_peak`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def reset_peak() -> int:
    """Give freed memory back to the system, start the peak anew, and return the bytes resident now."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")
