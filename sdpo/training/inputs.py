"""What a run learns from, by its content: the model's files and the tasks.  Noted when it begins, compared later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import xxhash
from pydantic import TypeAdapter, ValidationError

from sdpo.checkpoints.manifest import measure_all
from sdpo.config.model_files import load_config
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset
from sdpo.errors import UserError
from sdpo.types import Task

NAME = "inputs.json"
_NOT_READ = {".md", ".png", ".jpg", ".svg", ".pdf"}  # what lies in a model folder for people


def collect(recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """Of every model file and of the tasks of either side: a checksum.  Reads the model's files."""
    found = {f"model/{name}": checksum for name, checksum in _model(recipe).items()}
    for name, tasks in {"training": dataset.train, "evaluation": dataset.evaluation}.items():
        found[f"tasks/{name}"] = f"{len(tasks)} tasks, {fingerprint(tasks)}"
    return found


def read(path: Path) -> dict[str, str]:
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} cannot be read, which says what the run was begun with. Remove it to go on without comparing."
        ) from None


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Each as name: old → new."""
    names = sorted(old.keys() | new.keys())
    changed = [name for name in names if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name, 'not there')} → {new.get(name, 'not there')}" for name in changed]


def fingerprint(tasks: Iterable[Task]) -> str:
    """A checksum of all that tasks say, in their order; of objects other than plain data the type's name counts."""
    digest = xxhash.xxh3_128()
    for task in tasks:
        digest.update(json.dumps(_plain(task), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _model(recipe: Recipe) -> dict[str, str]:
    folder = Path(locate(recipe.model.path))
    if not folder.is_dir():  # on the hub, where a commit names the content
        return {"commit": str(getattr(load_config(recipe), "_commit_hash", None))}
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() not in _NOT_READ]
    resolved = {path.name: path.resolve() for path in files if not path.name.startswith(".")}  # hub caches hold links
    return {name: measure_all(path.parent, [path.name])[path.name].checksum for name, path in resolved.items()}


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
