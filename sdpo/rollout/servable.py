"""Whether a model can be served by the vLLM that is installed, told before anything is started.

Importing vLLM takes as long as half an engine's start.  What it declares (the architectures that it has, the head sizes
of its CPU attention, the arguments of its engines) is read from its source instead; where that looks otherwise than
expected, nothing is said here, and the engine says it.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from sdpo.config.schema import Recipe
from sdpo.errors import UserError

_REGISTRY, _CPU_ATTENTION = "model_executor/models/registry.py", "v1/attention/backends/cpu_attn.py"
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


@cache
def architectures() -> frozenset[str]:
    """Those that vLLM lists as generating text; empty where it is not installed, or keeps them elsewhere."""
    found: set[Any] = set()
    for node in _tree(_REGISTRY).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict()) if name in _GENERATE:
                found |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    return frozenset(found)


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
