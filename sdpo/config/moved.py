"""Options that have moved or were renamed: old → new, in one table (moved.yaml).

A recipe or a command line with an old key is refused with its new name.  Whatever was written before (run folders,
records of studies) spells out every option, old ones included, and is read through the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sdpo.errors import UserError

_GONE = object()


@dataclass(frozen=True)
class Moved:
    """What became of one option.

    `default`: the value that it had unless something else was said; with it nothing has to be carried over.  `values`:
    old value → new one.  `beside`: options that must be set with the new one.
    """

    old: str
    new: str
    default: Any = _GONE
    values: Mapping[Any, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)


TABLE = tuple(Moved(**entry) for entry in yaml.safe_load(Path(__file__).with_name("moved.yaml").read_text()))

# Options of one algorithm each, which every recipe used to spell out: null where they did not apply.
_ONCE_COMMON = ("algorithm.mix", "algorithm.entropy_beta")


def refuse(values: Mapping[str, Any], where: str) -> None:
    """Raises UserError for the first old key, or old value of a key, with what takes its place."""
    for moved in TABLE:
        value = _get(values, moved.old)
        if value is _GONE:
            continue
        if moved.new != moved.old:
            beside = "".join(f", together with {key}={name}" for key, name in moved.beside.items())
            raise UserError(f"Recipe {where}: {moved.old} is now {moved.new}{beside}.")
        if isinstance(value, str) and value in moved.values:
            raise UserError(f"Recipe {where}: {moved.old}={value} is now {moved.old}={moved.values[value]}.")


def update(values: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe of any earlier version in the names of this one."""
    updated = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for moved in TABLE:
        value = _get(updated, moved.old)
        if value is _GONE:
            continue
        if moved.new == moved.old:
            if isinstance(value, str):
                _set(updated, moved.old, moved.values.get(value, value))
            continue
        _drop(updated, moved.old)
        if value != moved.default:
            for key, name in {**moved.beside, moved.new: value}.items():
                _set(updated, key, name)
    for option in _ONCE_COMMON:
        if _get(updated, option) is None:
            _drop(updated, option)
    return updated


def _get(values: Mapping[str, Any], path: str) -> Any:
    section, _, option = path.partition(".")
    inner = values.get(section)
    return inner.get(option, _GONE) if isinstance(inner, Mapping) else _GONE


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, option = path.partition(".")
    values[section] = {**(values.get(section) or {}), option: value}


def _drop(values: dict[str, Any], path: str) -> None:
    section, _, option = path.partition(".")
    values[section].pop(option, None)
