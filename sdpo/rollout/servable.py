"""Whether a model can be served by the vLLM that is installed, told before anything is started.

Importing vLLM takes as long as half an engine's start.  What it declares (the architectures that it has and what they
are made of, the head sizes of its CPU attention, the arguments of its engines) is read from its source instead; where
that looks otherwise than expected, nothing is said here, and the engine says it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.rollout.config import AdapterSlots

_MODELS, _LAYERS = "model_executor/models/", "vllm.model_executor.layers."
_REGISTRY, _CPU_ATTENTION = f"{_MODELS}registry.py", "v1/attention/backends/cpu_attn.py"
_ARGUMENTS = "engine/arg_utils.py"
_GENERATE = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
_REMEDY = "Give a causal language model (Qwen, Llama, OLMo, Mistral, …) as model.path."


def check_servable(config: Any, recipe: Recipe) -> None:
    """Raises UserError for a configuration that transformers has no causal language model of, or vLLM cannot serve."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    where, named = recipe.model.path, list(config.architectures or ())
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{where} is no causal language model, but {(*named, config.model_type)[0]}. {_REMEDY}")
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not named:
        raise UserError(
            f"The config.json of {where} names no architecture, and vLLM takes such a model for one that embeds texts. "
            f'Add "architectures": ["{causal.__name__}"].'
        )
    known = architectures()
    if known and not known & set(named) and not (named[0] == causal.__name__ and _by_transformers(causal)):
        raise UserError(f"The architecture of {where}, {named[0]}, is none that vLLM generates text with. {_REMEDY}")
    sizes, size = cpu_head_sizes(), _head_size(config)
    if recipe.profile == "cpu" and sizes and size is not None and size not in sizes:
        raise UserError(
            f"The attention heads of {where} have the size {size}; on a CPU vLLM has {', '.join(map(str, sizes))}. "
            "Take a model with heads of one of these sizes (head_dim in config.json), or a GPU (profile gpu)."
        )
    if recipe.profile == "cpu" and (lack := _lack_on_a_cpu(named[0], recipe)):
        raise UserError(f"{where} cannot be sampled from on a CPU: {lack}.")


def _lack_on_a_cpu(architecture: str, recipe: Recipe) -> str:
    """What vLLM's CPU build lacks for layers that keep a state; empty: nothing that is known."""
    for layer in _layers_of(architecture):
        if layer == f"{_LAYERS}mamba.mamba_mixer":
            return "vLLM has no kernel for its recurrent layers there (selective scan). Take a GPU (profile gpu)"
        if layer.startswith(f"{_LAYERS}mamba.gdn.") and recipe.model.dtype != "bfloat16":
            return "vLLM computes its linear attention there in bfloat16 alone. Set model.dtype=bfloat16"
    return ""


def check_adapter(config: Any, recipe: Recipe, adapters: AdapterSlots) -> None:
    """Raises UserError for an adapter that vLLM does not load beside the model of this configuration."""
    architecture, layers = config.architectures[0], adapters.targets
    if (ancestors := _ancestors(*_class(architecture))) and "SupportsLoRA" not in ancestors:
        reason = f"its {architecture} takes none"
    elif getattr(config.get_text_config(decoder=True), "kv_lora_rank", None) and "kv_b_proj" in layers:
        reason = "it multiplies kv_b_proj with its neighbours beforehand, an adapter there would be left out"
    elif recipe.profile == "cpu" and any(re.search("mamba|fused_moe", layer) for layer in _layers_of(architecture)):
        reason = f"on a CPU its {architecture} takes none (experts, layers that keep a state)"
    else:
        return
    raise UserError(f"vLLM cannot load the adapter of {recipe.model.path}: {reason}. Leave rollout.adapter at merged.")


@cache
def architectures() -> frozenset[str]:
    """Those that vLLM lists as generating text; empty where it is not installed, or keeps them elsewhere."""
    return frozenset(_models())


@cache
def _models() -> dict[str, tuple[str, str]]:
    """The module and the class of each of these architectures; both empty where it lists them in another way."""
    found: dict[str, tuple[str, str]] = {}
    for node in _tree(_REGISTRY).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys, values=values)) if name in _GENERATE:
                for key, value in zip(keys, values, strict=True):
                    match key, value:
                        case ast.Constant(value=each), ast.Tuple(elts=[ast.Constant(value=a), ast.Constant(value=b)]):
                            found[each] = a, b
                        case ast.Constant(value=each), _:
                            found[each] = "", ""
    return found


def _layers_of(architecture: str) -> set[str]:
    """vLLM's modules of layers that the module of an architecture imports."""
    nodes = ast.walk(_tree(f"{_MODELS}{_class(architecture)[0]}.py"))
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name for name in imported if name.startswith(_LAYERS)}


def _class(architecture: str) -> tuple[str, str]:
    return _models().get(architecture, ("", ""))


def _ancestors(module: str, name: str) -> set[str]:
    """Names of the classes that a class of vLLM's models is made from, as far as they are found."""
    body, found = _tree(f"{_MODELS}{module}.py").body, set()
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            found.update(bases, *(_ancestors(*_origin(body, module, base)) for base in bases))
    return found


def _origin(body: list[ast.stmt], module: str, name: str) -> tuple[str, str]:
    """The module among vLLM's models in which a class is defined that this module knows by name, and its name there."""
    for node in body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if (alias.asname or alias.name) == name:
                return (node.module or "").rpartition("models.")[2], alias.name
    return module, name


@cache
def argument_names() -> frozenset[str]:
    """The arguments of vLLM's engines; empty where it is not installed, or keeps them elsewhere."""
    classes = (node for node in _tree(_ARGUMENTS).body if isinstance(node, ast.ClassDef))
    fields = (node for kind in classes if kind.name in ("EngineArgs", "AsyncEngineArgs") for node in kind.body)
    return frozenset(f.target.id for f in fields if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name))


@cache
def cpu_head_sizes() -> tuple[int, ...]:
    """Head sizes that vLLM's attention has on a CPU; empty where it does not say."""
    for node in ast.walk(_tree(_CPU_ATTENTION)):
        if isinstance(node, ast.FunctionDef) and node.name == "get_supported_head_sizes":
            match node.body:
                case [ast.Return(value=ast.List(elts=sizes))]:
                    return tuple(size.value for size in sizes if isinstance(size, ast.Constant))
    return ()


@cache
def _tree(name: str) -> ast.Module:
    found = importlib.util.find_spec("vllm")
    file = Path(found.origin or "").parent / name if found is not None else Path(name)
    return ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")


def _by_transformers(kind: Any) -> bool:
    """Whether vLLM runs this class of transformers where it has none of its own."""
    return bool(kind.is_backend_compatible() or kind._can_set_attn_implementation())


def _head_size(config: Any) -> int | None:
    """None for a model without attention heads, or with a compressed key-value cache (MLA), which has no such size."""
    text = config.get_text_config(decoder=True)
    heads, hidden = getattr(text, "num_attention_heads", None), getattr(text, "hidden_size", None)
    if getattr(text, "kv_lora_rank", None) or not isinstance(heads, int) or not heads or not hidden:
        return None
    return getattr(text, "head_dim", None) or hidden // heads
