"""What makes two runs one configuration: their recipes, without what decides about no number, and without the seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpo.config.resume import is_free

# A run's own: its seed, and what it and its family are called.
_OWN = frozenset({"seed", "name", "recipe"})


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def configuration(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a resolved recipe (`model_dump(mode="json")`) that counts, by its path."""
    flat = flatten(settings).items()
    return {option: value for option, value in flat if option not in _OWN and not is_free(option, value)}
