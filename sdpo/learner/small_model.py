"""A model of a configuration that is small enough to be computed on a CPU at once: one layer of each kind.

Everything that decides *how* a model computes stays: hidden size, heads, position encoding, norms, routers, factors.
What only decides how much is cut: layers of a kind that is there already, the vocabulary, the widths within MLPs, the
number of experts.  None of these is seen by packing, by the losses' head or by the export, but together they are all
but a few hundred megabytes of a large model.  What layers there are is read off the model itself, built without
memory, not off its configuration: there a pattern has many names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

_VOCABULARY = 1500  # more than one slab of the chunked projection
_MLP_WIDTH = 128
_EXPERTS = 32
WINDOW = 8  # tokens: what a window is lowered to if the run's sequences can pass it
EXTENSION = 16  # the same for the length from which position encodings change
MOST_PARAMETERS = 600_000_000  # 2.4 GB in fp32


def small_config(config: PretrainedConfig, longest: int) -> PretrainedConfig | None:
    """The configuration cut down, or None if no cut of it is small.

    longest  tokens of the run's longest sequence.  Windows that it passes, and lengths from which a position encoding
             changes, are lowered, so that the few tokens of a check pass them too; others have no effect in the run.
    """
    whole = _plain(config)
    kinds = _Kinds.of(config)
    if kinds is None or _name(config, "num_hidden_layers") not in _text(whole, config):
        return None
    for layers in _layer_cuts(whole, config, kinds):
        if (found := _built(config, layers)) is None or not kinds.all_in(found):
            continue
        for cut in _width_cuts(layers, config):
            for lowered in (_lowered(cut, longest), cut):
                small = _built(config, lowered)
                if small is not None and _parameters(small) <= MOST_PARAMETERS:
                    return small
    return None


# ------------------------------------------------------------------------------------------------ kinds of layers


@dataclass(frozen=True)
class _Kinds:
    """What each layer of a model is made of, in order."""

    layers: tuple[tuple, ...]
    counters: frozenset[str]  # attributes that number the layers, which tell no kinds apart
    lists: tuple[str, ...]  # keys of the configuration that hold an entry per layer

    @classmethod
    def of(cls, config: PretrainedConfig) -> _Kinds | None:
        """None for a model whose layers are not found."""
        if (layers := _layers(config)) is None:
            return None
        described = [_description(layer) for layer in layers]
        counters = _counters(described)
        lists = tuple(_per_layer(_plain(config.get_text_config(decoder=True)), len(layers)))
        return cls(_kinds(config, described, counters, lists), counters, lists)

    @property
    def first(self) -> list[int]:
        """The first layer of each kind."""
        return [self.layers.index(kind) for kind in dict.fromkeys(self.layers)]

    def all_in(self, config: PretrainedConfig) -> bool:
        """Whether a model of this configuration has a layer of each kind."""
        layers = _layers(config)
        described = [_description(layer) for layer in layers or ()]
        return set(self.layers) <= set(_kinds(config, described, self.counters, self.lists))


def _layers(config: PretrainedConfig) -> nn.ModuleList | None:
    count = getattr(config.get_text_config(decoder=True), "num_hidden_layers", 0)
    model = _without_memory(config)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count > 0]
    return max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=None)


def _kinds(config, described: list[dict[str, Any]], counters: Iterable[str], lists: Iterable[str]) -> tuple[tuple, ...]:
    text = _plain(config.get_text_config(decoder=True))
    return tuple(
        (
            tuple(sorted((key, repr(v)) for key, v in each.items() if key.rpartition(".")[2] not in counters)),
            tuple((name, repr(text[name][i])) for name in lists),
        )
        for i, each in enumerate(described)
    )


def _counters(described: list[dict[str, Any]]) -> frozenset[str]:
    offsets: dict[str, set[Any]] = {}
    for i, each in enumerate(described):
        for key, value in each.items():
            offsets.setdefault(key.rpartition(".")[2], set()).add(value - i if type(value) is int else None)
    return frozenset(n for n, found in offsets.items() if len(found) == 1 and None not in found and len(described) > 1)


def _description(layer: nn.Module) -> dict[str, Any]:
    """Classes, shapes and plain attributes of a layer and all within it."""
    found: dict[str, Any] = {}
    for path, module in layer.named_modules():
        found[f"{path}:class"] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str | None | tuple) and not name.startswith("_"):
                found[f"{path}.{name}"] = value
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            found[f"{path}:{name}"] = tuple(tensor.shape)
    return found


def _without_memory(config: PretrainedConfig) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config))


def _parameters(config: PretrainedConfig) -> int:
    return sum(p.numel() for p in _without_memory(config).parameters())


# ------------------------------------------------------------------------------------------------ cuts


def _layer_cuts(whole: dict, config: PretrainedConfig, kinds: _Kinds) -> list[dict]:
    """Configurations with fewer layers: the first of each kind, then all up to the last of these."""
    first = kinds.first
    chosen = [_with_layers(whole, config, first)]
    for place in first[1:]:  # "from layer 3 on", as a number
        chosen.append(_with_layers(_renumbered(whole, place), config, [0, *range(1, len(first))]))
    return [*chosen, _with_layers(whole, config, list(range(max(first) + 1)))]


def _with_layers(whole: dict, config: PretrainedConfig, layers: list[int]) -> dict:
    """These layers only: lists and strings with an entry per layer get the entries of these."""
    cut = copy.deepcopy(whole)
    text = _text(cut, config)
    name = _name(config, "num_hidden_layers")
    for key, values in _per_layer(text, text[name]).items():
        kept = [values[i] for i in layers]
        text[key] = "".join(kept) if isinstance(values, str) else kept
    text[name] = len(layers)
    return cut


def _renumbered(whole: dict, place: int) -> dict:
    """Layers of a new kind begin at 1 wherever the configuration says `place`."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(each) for key, each in value.items()}
        return 1 if type(value) is int and value == place else value

    return changed(whole)


def _width_cuts(cut: dict, config: PretrainedConfig) -> list[dict]:
    """The same with small widths; then as it is, for models that cannot be built with them."""
    narrow = copy.deepcopy(cut)
    vocabulary = _name(config, "vocab_size")
    text = _text(narrow, config)
    text[vocabulary] = min(text[vocabulary], _VOCABULARY)
    if vocabulary in narrow:
        narrow[vocabulary] = text[vocabulary]

    def walk(part: dict) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                walk(value)
            elif str(key).endswith(("_token_id", "_token_ids", "_token_index")):
                part[key] = _within(value, text[vocabulary])
            elif re.search("intermediate_size|ffn_dim|ffn_hidden_size|n_inner", str(key)):
                part[key] = _at_most(value, _MLP_WIDTH)
            elif re.fullmatch("(num|n|moe_num)(_local|_routed)?_experts", str(key)):
                part[key] = _at_most(value, _EXPERTS)

    walk(narrow)
    return [narrow, cut]


def _within(value: Any, vocabulary: int) -> Any:
    if isinstance(value, list):
        return [_within(each, vocabulary) for each in value]
    return min(value, vocabulary - 1) if type(value) is int else value


def _at_most(value: Any, limit: int) -> Any:
    if isinstance(value, list):
        return [_at_most(each, limit) for each in value]
    return min(value, limit) if type(value) is int else value


def _lowered(cut: dict, longest: int) -> dict:
    """Lengths that the run's sequences can pass, so low that a check's can."""

    def changed(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(str(name), each) for name, each in value.items()}
        if type(value) is not int or not EXTENSION < value < longest:
            return value
        if re.search("original_max", key):
            return EXTENSION
        return WINDOW if re.search("window|chunk_size", key) and "layer" not in key else value

    return changed("", cut)


# ------------------------------------------------------------------------------------------------ configurations


def _plain(config: PretrainedConfig) -> dict:
    plain = config.to_dict()
    plain.pop("quantization_config", None)  # weights are random, in fp32
    return plain


def _text(plain: dict, config: PretrainedConfig) -> dict:
    """The part of a configuration that describes the language model."""
    text = config.get_text_config(decoder=True)
    if text is config:
        return plain
    return next((plain[name] for name in config.sub_configs if getattr(config, name, None) is text), plain)


def _name(config: PretrainedConfig, name: str) -> str:
    """The configuration's own name for what transformers calls `name` everywhere."""
    return config.get_text_config(decoder=True).attribute_map.get(name, name)


def _per_layer(text: dict, count: int) -> dict[str, list | str]:
    """Lists, and patterns written as a string, with an entry per layer; a list that counts them is none."""
    return {
        key: values
        for key, values in text.items()
        if (isinstance(values, list | tuple) or isinstance(values, str) and "pattern" in key)
        and len(values) == count > 1
        and list(values) != list(range(count))
    }


def _built(config: PretrainedConfig, plain: dict) -> PretrainedConfig | None:
    """The configuration as an object, None if there is no such model."""
    try:
        found = type(config).from_dict(copy.deepcopy(plain))
        _without_memory(found)
    except Exception:  # noqa: BLE001 — whatever configurations and models of unknown kinds refuse a cut with
        return None
    return found
