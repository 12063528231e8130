"""The processes of an engine, seen from its actor."""

from __future__ import annotations

import contextlib

import psutil


def children() -> dict[int, str]:
    """vLLM's processes; Python's own helper beside them is nothing to depend on."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in word for word in child.cmdline()):
                found[child.pid] = "its vLLM core" if "EngineCore" in " ".join(child.cmdline()) else "a vLLM worker"
    return found


def resident_bytes() -> int:
    """Of the actor and all its children."""
    own = psutil.Process()
    total = own.memory_info().rss
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total
