"""The heap that children inherit: what they allocate lies together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOLES = """
import ctypes, sys
sys.path.insert(0, {root!r})
from sandbox import heap
allocate = heap._allocator({allocator})
free = {free}
free.argtypes, free.restype = [ctypes.c_void_p], None
pieces = [allocate({size}) for _ in range(4000)]
for address in pieces[::2]:
    free(address)
if {tidy}:
    heap.tidy()
places = [allocate({size}) for _ in range(8)]
print([after - before for before, after in zip(places, places[1:])])
"""


@pytest.mark.parametrize(
    ("allocator", "free", "size", "piece"),
    [
        ("ctypes.pythonapi.PyObject_Malloc", "ctypes.pythonapi.PyObject_Free", 208, 208),
        ("ctypes.CDLL(None).malloc", "ctypes.CDLL(None).free", 600, 608),
    ],
)
def test_what_is_allocated_next_lies_together(allocator, free, size, piece):
    def distances(tidy: bool) -> str:
        script = HOLES.format(root=str(ROOT), allocator=allocator, free=free, size=size, tidy=tidy)
        command = [sys.executable, "-I", "-S", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert distances(tidy=True) == str([piece] * 7)
    assert distances(tidy=False) != str([piece] * 7)  # or there would be nothing to put in order
