"""A checksum of a tensor that CPU and GPU compute alike, where the tensor lies.

The tensor is read as a sequence of integer words x_i of its item size, and the checksum is

    Σ_i x_i · w_i  mod 2^64,    w_i = (i · 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) | 1.

Integer arithmetic is exact, so neither the order of the sum nor the device matters.  Every w_i is odd, hence any change
of a single word changes the sum, and since the w_i differ, so do exchanged words.  It guards against mistakes, not
against an adversary.  Shape and dtype are not part of it.
"""

from __future__ import annotations

import torch

_WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_STEP = 0x9E3779B97F4A7C15 - 2**64  # as signed 64-bit integers, which is what torch multiplies (with wrap-around)
_OFFSET = 0x632BE59BD9B4E019
# Words at a time; the products need 8 bytes each.  On a CPU they stay in its cache, a GPU wants few launches.
_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}


@torch.no_grad()
def checksum(tensor: torch.Tensor) -> int:
    """The checksum of a dense tensor of any shape and item size (1, 2, 4 or 8 bytes), as a signed 64-bit integer."""
    words = tensor.detach().contiguous().view(-1).view(_WORD[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    chunk = _CHUNK[words.device.type]
    for start in range(0, words.numel(), chunk):
        part = words[start : start + chunk].to(torch.int64)
        index = torch.arange(start, start + part.numel(), dtype=torch.int64, device=words.device)
        total += (part * ((index * _STEP + _OFFSET) | 1)).sum()
    return int(total)


def combine(checksums: dict[str, int]) -> str:
    """One hexadecimal number for a set of named tensors, independent of their order."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(checksums):
        digest.update(f"{name}\0{checksums[name]}\n".encode())
    return digest.hexdigest()[:16]
