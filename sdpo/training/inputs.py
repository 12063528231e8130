"""What a run learns from, by its content: the model's files, the tasks, code of the user's own.

Noted when it begins, compared when it goes on.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import xxhash
from pydantic import TypeAdapter, ValidationError

from sdpo.checkpoints.manifest import measure
from sdpo.config.paths import locate
from sdpo.config.registry import is_reference
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset
from sdpo.errors import UserError
from sdpo.types import Task

NAME, CODE = "inputs.json", "code/"
_GONE = "not there"
_NOT_READ = {".md", ".png", ".jpg", ".svg", ".pdf"}  # what lies in a model folder for people


def collect(recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """A checksum of every model file, of the tasks of either side, and of files of code that the recipe names."""
    found = {f"model/{name}": checksum for name, checksum in model_files(recipe.model.path).items()}
    for name, tasks in {"training": dataset.train, "evaluation": dataset.evaluation}.items():
        found[f"tasks/{name}"] = f"{len(tasks)} tasks, {fingerprint(tasks)}"
    for where in {text.rpartition(":")[0] for text in _texts(recipe.model_dump(mode="json")) if is_reference(text)}:
        if (file := _source(where)) is not None:
            found[f"{CODE}{where}"] = measure(file).checksum
    return found


def read(path: Path) -> dict[str, str]:
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} cannot be read. It says which files the run started from; remove it to go on "
            "without comparing them."
        ) from None


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What is not the same: (old, new)."""
    names = sorted(old.keys() | new.keys())
    return {n: (old.get(n, _GONE), new.get(n, _GONE)) for n in names if old.get(n) != new.get(n)}


def fingerprint(tasks: Iterable[Task]) -> str:
    """A checksum of all that tasks say, in their order; of objects other than plain data the type's name counts."""
    digest = xxhash.xxh3_128()
    for task in tasks:
        digest.update(json.dumps(_plain(task), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def model_files(path: str) -> dict[str, str]:
    """A checksum of each file of a model folder; of a model on the hub its commit, which names the content."""
    folder = Path(locate(path))
    if not folder.is_dir():
        from transformers import AutoConfig

        return {"commit": str(getattr(AutoConfig.from_pretrained(path), "_commit_hash", None))}
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() not in _NOT_READ]
    resolved = {path.name: path.resolve() for path in files if not path.name.startswith(".")}  # hub caches hold links
    return {name: measure(path).checksum for name, path in resolved.items()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _source(where: str) -> Path | None:
    """The file of module or path.py, if there is one."""
    if where.endswith(".py"):
        path = Path(locate(where))
        return path.resolve() if path.is_file() else None
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.has_location and spec.origin else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, Mapping):
        return ["mapping", sorted([json.dumps(_plain(k)), _plain(v)] for k, v in value.items())]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(json.dumps(_plain(item), sort_keys=True) for item in value)]
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
