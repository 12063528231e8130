"""Imports of large packages, a quarter faster: without Python's search for garbage in what stays for good."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it no garbage is searched for.

    torch, transformers, vLLM and DeepSpeed make millions of objects, among which Python looks for cycles again and
    again while their number grows, and finds next to none.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
