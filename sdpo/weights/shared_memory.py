"""Blocks of memory that one process writes and others on the same machine read.

A block is an anonymous file in memory (Linux `memfd_create`), reached through `/proc/<writer>/fd/<n>`.  Unlike a named
segment in /dev/shm it has no name to be unlinked: the kernel frees it with its last user, also after SIGKILL, so
nothing can leak.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import torch

from sdpo.errors import UserError
from sdpo.weights.errors import WeightTransferError

ALIGNMENT = 64  # bytes: a cache line, and enough for a view of any dtype


@dataclass(frozen=True)
class Entry:
    """One tensor in a block: its contiguous bytes begin at `offset`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def as_dict(self) -> dict:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "offset": self.offset}


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Block:
    """A writable block.  It grows on demand and is reused between publications."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise UserError(
                "Shared-memory weight transfer needs Linux (memfd_create): run the cpu profile there or in a container."
            )
        self._fd = os.memfd_create("sdpo-weights", os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None
        self.capacity = 0

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def reserve(self, nbytes: int) -> None:
        """Make room for at least `nbytes`; what was in the block is lost when it grows."""
        if nbytes <= self.capacity:
            return
        if self._map is not None:
            self._map.close()
        os.ftruncate(self._fd, nbytes)
        self._map = mmap.mmap(self._fd, nbytes)
        self.capacity = nbytes

    def write(self, offset: int, tensor: torch.Tensor) -> None:
        """Copy a contiguous tensor's bytes to `offset`."""
        assert self._map is not None
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes == 0:
            return
        target = torch.frombuffer(self._map, dtype=torch.uint8, count=nbytes, offset=offset)
        target.copy_(tensor.view(-1).view(torch.uint8))

    def close(self) -> None:
        if self._fd >= 0:
            if self._map is not None:
                self._map.close()
                self._map = None
            os.close(self._fd)
            self._fd = -1
            self.capacity = 0

    def __del__(self) -> None:
        self.close()


def read(path: str, nbytes: int, entries: list[dict]) -> list[tuple[str, torch.Tensor]]:
    """Copies of the tensors in a block, with their names.

    Copies, because vLLM's layerwise reload keeps what it is given until a layer is complete, by when the writer may
    have filled the block anew.

    Raises:
        WeightTransferError: the block cannot be reached from this process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise WeightTransferError(
            f"The learner's shared memory {path} cannot be opened here ({error.strerror}): the learner has ended, or "
            "it runs on another machine or as another user."
        ) from error
    try:
        # Private and writable: torch wants writable buffers; nothing is written.
        with mmap.mmap(fd, nbytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
            out = []
            for entry in entries:
                dtype = getattr(torch, entry["dtype"])
                count = 1
                for size in entry["shape"]:
                    count *= size
                if count:
                    source = torch.frombuffer(view, dtype=dtype, count=count, offset=entry["offset"])
                    tensor = source.clone().view(entry["shape"])
                    del source  # the map cannot be closed while a tensor looks into it
                else:
                    tensor = torch.empty(entry["shape"], dtype=dtype)
                out.append((entry["name"], tensor))
            return out
    finally:
        os.close(fd)
