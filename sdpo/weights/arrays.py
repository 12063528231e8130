"""Tensors as numpy arrays, which Ray's object store hands out without a copy; numpy has no bfloat16."""

from __future__ import annotations

import numpy as np
import torch


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor in host memory, bit for bit; bfloat16 as the int16 with the same bits."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """A copy of an array that `as_array` made of a tensor of this dtype."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor
