"""What a model is made of, by number and size, read off the model itself, which is built without memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from sdpo.config.sections import AdapterSettings
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner.adapter import add_adapter


@dataclass(frozen=True, eq=False)
class Shapes:
    """Numbers of elements, unless it says otherwise.  A tied matrix counts once."""

    model: nn.Module  # on the meta device, with the adapter
    packs: bool  # whether it computes packs, or one sequence at a time with transformers' own attention
    layers: tuple[nn.Module, ...]
    kinds: tuple[int, ...]  # of each layer: the first layer that is made of the same
    parameters: int  # with the adapter
    trained: int  # all, or the adapter's
    matrix: int  # largest parameter
    layer: int  # largest layer
    used: float  # of all layers' matrices: those that a token is multiplied with, its share of the experts
    head: int  # output matrix
    hidden: int  # width of a hidden state
    vocabulary: int  # rows of the output matrix
    tied: bool  # whether the output matrix is the input embedding
    head_trains: bool


def shapes_of(
    config: PretrainedConfig,
    dtype: torch.dtype,
    form: str = "sdpa",
    adapter: AdapterSettings | None = None,
    packs: bool = True,
) -> Shapes:
    """Of the model of a configuration in `dtype`, with `form` of attention (`model.attention`).

    In packs "sdpa" counts as "flash_attention_2": padding takes at most what sharing prompts saves, and masks do not
    exist on the meta device.

    Raises UserError for a model whose layers are not found, and for an adapter that fits no layer.
    """
    counted = attention.register("flash_attention_2" if form == "sdpa" else form) if packs else form
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, attn_implementation=counted)
        if adapter is not None:
            add_adapter(model, adapter, seed=0)
    model.to(dtype).eval()
    layers = decoder_layers(model, config)
    if not layers:
        raise UserError(f"The layers of {config.model_type} are not found, so its memory cannot be counted.")
    head = model.get_output_embeddings().weight
    made_of = [_made_of(layer) for layer in layers]
    experts = getattr(config.get_text_config(decoder=True), "num_experts_per_tok", 1)
    return Shapes(
        model=model,
        packs=packs,
        layers=tuple(layers),
        kinds=tuple(made_of.index(each) for each in made_of),
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        matrix=max(p.numel() for p in model.parameters()),
        layer=max(map(_size, layers)),
        used=sum(_used(layer, experts) for layer in layers),
        head=head.numel(),
        hidden=head.shape[1],
        vocabulary=head.shape[0],
        tied=model.get_input_embeddings().weight is head,
        head_trains=head.requires_grad,
    )


def decoder_layers(model: nn.Module, config: PretrainedConfig) -> list[nn.Module]:
    """The layers of the language model in a model of this configuration; none where they are not found."""
    count = getattr(config.get_text_config(decoder=True), "num_hidden_layers", 0)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count > 0]
    return list(max(lists, key=_size, default=()))


def _size(module: Any) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())  # ds_numel: sharded by ZeRO-3


def _used(layer: nn.Module, experts: int) -> float:
    """Experts are one tensor, an expert per row."""
    each = [p for p in layer.parameters() if p.dim() > 1]
    return sum(p.numel() * (min(1.0, experts / p.shape[0]) if p.dim() == 3 else 1) for p in each)


def _made_of(layer: nn.Module) -> list[tuple]:
    classes = [(name, type(module).__name__) for name, module in layer.named_modules()]
    return classes + [(name, tuple(p.shape), p.requires_grad) for name, p in layer.named_parameters()]
