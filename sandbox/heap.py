"""The heap of the fork server, put in order before it forks.

What has been loaded leaves holes behind, and a child that allocates fills them, here and there; each page that it
writes to has to be copied for it.  If the holes are full, what it allocates lies together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_IN_A_ROW = 16  # neighbours: from there on the allocator cuts pieces off something large
_MOST = 20_000  # pieces of one size, if that never happens
_HEADER = 8  # bytes that malloc takes for itself
_SMALL = range(16, 513, 16)  # what Python's own allocator serves
_MEDIUM = range(24, 1033, 16)  # what malloc keeps lists of


def tidy() -> None:
    """Fill the holes, for good, and give back to the kernel what is free in large pieces."""
    libc = ctypes.CDLL(None)
    _fill(_allocator(ctypes.pythonapi.PyObject_Malloc), _SMALL, 0)
    _fill(_allocator(libc.malloc), _MEDIUM, _HEADER)
    if hasattr(libc, "malloc_trim"):  # the GNU C library has it
        libc.malloc_trim(ctypes.c_size_t(0))


def _allocator(function: ctypes._CFuncPtr) -> Callable[[int], int]:
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    return function


def _fill(allocate: Callable[[int], int], sizes: range, header: int) -> None:
    for size in reversed(sizes):
        last = neighbours = 0
        for _ in range(_MOST):
            address = allocate(size) or 0
            neighbours = neighbours + 1 if address == last + size + header else 0
            if neighbours == _IN_A_ROW:
                break
            last = address
