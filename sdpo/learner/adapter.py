"""LoRA adapters on the student, by PEFT: the base is frozen, only the adapter trains (Hu et al., arXiv 2106.09685).

There is no dropout: it would make another policy in every pass than the one that was sampled from.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from sdpo.config.sections import AdapterSettings
from sdpo.errors import UserError

NAME = "default"  # as PEFT calls an adapter that is not named
_BASE = ".base_layer"


def add_adapter(model: PreTrainedModel, settings: AdapterSettings, seed: int) -> None:
    """Freeze the model and put a fresh adapter into it, which adds 0: B is 0, A is drawn from `seed`.

    Raises UserError where the targets fit no layer, or one that is not linear.
    """
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, lora_dropout=0.0, bias="none"
    )
    head = model.get_output_embeddings()
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, NAME)
        except ValueError as error:
            raise UserError(f"model.adapter cannot be made: {error} Give other model.adapter.targets.") from None
    for name, layer in _layers(model):
        if layer.get_base_layer() is head or not isinstance(layer.get_base_layer(), nn.Linear):
            raise UserError(
                f"model.adapter.targets names {name}, which is no linear layer of the model's body. Leave it out."
            )


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def merged(model: nn.Module, tensors: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
    """Tensors of whole layers, full, under the names of the model without adapter: base + (alpha / rank) · B·A.

    Added up in fp32 and rounded once.  Nothing is written to the model.
    """
    parts = dict(tensors)
    found = []
    for name, tensor in tensors:
        if ".lora_" in name:
            continue
        layer, _, kind = name.rpartition(".")
        if layer.endswith(_BASE):
            layer = layer.removesuffix(_BASE)
            if kind == "weight":
                down, up = (parts[f"{layer}.lora_{half}.{NAME}.weight"].float() for half in "AB")
                scale = model.get_submodule(layer).scaling[NAME]
                tensor = torch.addmm(tensor.float(), up, down, alpha=scale).to(tensor.dtype)
            name = f"{layer}.{kind}"
        found.append((name, tensor))
    return found


def has_adapter(model: nn.Module) -> bool:
    return next(_layers(model), None) is not None
