"""A model as it is kept outside of the learner: the names and tensors of a checkpoint, and a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.core_model_loading import revert_weight_conversion

from sdpo.learner.adapter import merged
from sdpo.learner.gathering import gathered

Named = tuple[str, torch.Tensor]


def named_state(model: nn.Module) -> Iterator[list[Named]]:
    """The model's parameters, a tied one once, and its persistent buffers, full and layer by layer, an adapter merged.

    A persistent buffer is part of a checkpoint as a parameter is (a router's correction bias, say).  The tensors of
    a layer are there until the next one is asked for.  Collective under ZeRO-3.
    """
    kept = model.state_dict(keep_vars=True).keys()
    named = [*model.named_parameters(), *((name, b) for name, b in model.named_buffers() if name in kept)]
    layers = groupby(sorted(named, key=lambda each: _layer(each[0])), key=lambda each: _layer(each[0]))
    for _, group in layers:
        tensors = list(group)
        with gathered([tensor for _, tensor in tensors if isinstance(tensor, nn.Parameter)]):
            yield merged(model, [(name, tensor.detach()) for name, tensor in tensors])


def _layer(name: str) -> str:
    """What comes before the name's first number, and that number: model.layers.3; else the name."""
    found = re.match(r".*?\.\d+(?=\.)", name)
    return found[0] if found else name


def checkpoint_tensors(model: nn.Module) -> Iterator[Named]:
    """The same under the names and in the shapes of a checkpoint, which are what other programs know.

    transformers holds the experts of a layer, for example, as one tensor, where a checkpoint has one per expert.
    """
    for tensors in named_state(model):
        yield from revert_weight_conversion(model, dict(tensors)).items()


def write(model: nn.Module, state: dict[str, torch.Tensor], folder: str | Path) -> None:
    """Write a model whose tensors are `state` (`named_state`) as a Hugging Face folder, without tokenizer.

    generation_config.json says again what the loaded one said, end tokens first of all.  transformers refuses to write
    some that it reads, such as a temperature without do_sample, which many published folders have.
    """
    generation, model.generation_config = getattr(model, "generation_config", None), GenerationConfig()
    try:
        model.save_pretrained(folder, state_dict=state)
    finally:
        model.generation_config = generation
    if generation is not None:
        generation.to_json_file(Path(folder) / "generation_config.json", keys_to_pop=["compile_config"])
