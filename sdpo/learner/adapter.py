"""LoRA adapters on the student, by PEFT: the base is frozen, only the adapter trains (Hu et al., arXiv 2106.09685).

There is no dropout: it would make another policy in every pass than the one that was sampled from.  PEFT takes a second
to import, which only those pay who have an adapter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from sdpo.config.sections import AdapterSettings
from sdpo.errors import UserError

NAME = "default"  # as PEFT calls an adapter that is not named
CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
_BASE, _PEFT = ".base_layer", "base_model.model."


def add_adapter(model: PreTrainedModel, settings: AdapterSettings, seed: int) -> None:
    """Freeze the model and put a fresh adapter into it, which adds 0: B is 0, A is drawn from `seed`.

    Raises UserError where the targets fit no layer, or one that is not linear.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    head = model.get_output_embeddings()
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, bias="none")
    config.target_modules = _linear_layers(model) if settings.targets == "all-linear" else set(settings.targets)
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, NAME)
        except ValueError as error:
            raise UserError(f"model.adapter cannot be made: {error} Give other model.adapter.targets.") from None
    for name, layer in model.named_modules():
        base = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        if base is not None and (base is head or not isinstance(base, nn.Linear)):
            raise UserError(
                f"model.adapter.targets names {name}, which is no linear layer of the model's body. Leave it out."
            )


def _linear_layers(model: PreTrainedModel) -> set[str]:
    """All linear layers of the body, by name, without the experts that a layer holds as one tensor.

    PEFT knows these experts by the names that they had as layers of their own (gate_proj, …).  Linear layers of the
    same names beside them, as shared experts have, would be taken for them and are left out too.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    head = model.get_output_embeddings()
    found = {n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head}
    taken = LoraConfig(target_modules=found)
    convert_peft_config_for_transformers(taken, model, conversions=None)
    return found & set(taken.target_modules)


def adapted_layers(config: PretrainedConfig, settings: AdapterSettings) -> tuple[str, ...]:
    """The last names (q_proj, …) of the layers that get an adapter in a model of a configuration.

    The model is built without memory.  Raises UserError as `add_adapter`.
    """
    from peft.tuners.lora import LoraLayer

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
        add_adapter(model, settings, seed=0)
    found = {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    return tuple(sorted(found))


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


def write_adapter(model: PreTrainedModel, state: Mapping[str, torch.Tensor], base: str, folder: Path) -> None:
    """Write an adapter as PEFT does.

    Args:
        model: what the adapter is in.
        state: the adapter's tensors, in full, under the model's names.
        base: the path or hub name of the model without it.
    """
    config = copy.copy(model.peft_config[NAME])
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    tensors = {_in_file(name): tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def read_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Give the model's adapter the weights that `write_adapter` or PEFT wrote.  Raises UserError if they do not fit."""
    found = load_file(folder / FILE)
    wanted = {_in_file(name): p for name, p in model.named_parameters() if ".lora_" in name}
    if {n: t.shape for n, t in found.items()} != {n: p.shape for n, p in wanted.items()}:
        raise UserError(f"{folder / FILE} does not fit the model that {folder / CONFIG} names as its base.")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])


def _in_file(name: str) -> str:
    """What PEFT calls a tensor of the adapter in its file: without the adapter's own name."""
    return _PEFT + name.replace(f".{NAME}.", ".")
