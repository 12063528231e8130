"""sdpo: post-training of language models by self-distillation, beside a GRPO baseline."""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"
# name → the module that has it, imported when somebody asks
_LAZY = {"Sandbox": "sandbox", **dict.fromkeys(("Run", "evaluate", "inspect", "load_run", "train"), "sdpo.api")}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
