"""Whether the weights in a model folder are finite, by reading its files before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdpo.config.paths import locate
from sdpo.errors import UserError


def check_weights(model: str) -> None:
    """Raises UserError for the first tensor of a folder with NaN or infinite values, and for a file that is damaged.

    A hub name is left to those who load it.
    """
    import torch

    folder = Path(locate(model))
    if not folder.is_dir():
        return
    for file, name, tensor in _tensors(folder):
        if not tensor.is_floating_point():
            continue
        wide = tensor.float() if tensor.element_size() == 1 else tensor
        bad = wide.numel() - int(torch.isfinite(wide).sum())
        if bad:
            raise UserError(
                f"The model {model} is broken: of the tensor {name}, {bad:,} of {wide.numel():,} values are NaN or "
                f"infinite ({file.name}). Give another folder, or download or export this one again."
            )


def _tensors(folder: Path) -> Iterator[tuple[Path, str, Any]]:
    import torch
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 — no dictionary
                    yield file, name, opened.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{file} cannot be read ({error}). Download or export the model folder again.") from None
    if any(folder.glob("*.safetensors")):
        return
    for file in sorted(folder.glob("*.bin")):
        for name, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=True).items():
            if isinstance(tensor, torch.Tensor):
                yield file, name, tensor
