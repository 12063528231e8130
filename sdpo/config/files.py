"""From recipe files and ``key=value`` overrides to one validated `Recipe`.

A file may name a base (``extends: base.yaml``, relative to itself, or ``recipes/livecodebench/sdpo.yaml``, one of the
bundled ones) and hold a section per profile (``profiles: {cpu: …, gpu: …}``), for GPUs also by their number (``gpu-4``
for 4 and more, up to the next).  Later wins: base file, base file's profile section and that of its GPUs, file, file's
profile section and that of its GPUs, overrides.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sdpo.config import moved, registry
from sdpo.config.override_values import read_value, section
from sdpo.config.paths import BUNDLED, locate
from sdpo.config.schema import Recipe, algorithm_class, environment_class
from sdpo.errors import UserError

RECIPES = BUNDLED / "recipes"
_BY_NUMBER = re.compile(r"gpu-[1-9]\d*")


def find_recipe(name: str, algorithm: str | None) -> Path:
    """The file of a recipe: a path to YAML, or ``<family>`` under ``recipes/`` with one file per algorithm."""
    if name.endswith((".yaml", ".yml")):
        if algorithm is not None:
            raise UserError(
                f"{name} is a recipe file and names its algorithm itself; leave --algorithm {algorithm} out."
            )
        path = Path(name)
        if not path.is_file():
            raise UserError(f"There is no recipe file {path}. Give an existing file, or one of: {recipe_names()}.")
        return path
    family = RECIPES / name
    if not family.is_dir():
        raise UserError(
            f"There is no recipe {name!r} under {RECIPES}.{nearest(name, recipe_names())} Known: {recipe_names()}."
        )
    known = sorted(p.stem for p in family.glob("*.yaml") if p.stem != "base")
    path = family / f"{algorithm or registry.DEFAULT_ALGORITHM}.yaml"
    if path.stem not in known:
        raise UserError(
            f"Recipe {name!r} has no algorithm {algorithm!r}.{nearest(str(algorithm), known)} Known: {known}."
        )
    return path


def load_recipe(path: Path, profile: str, overrides: Iterable[str] = (), gpus: int | None = None) -> Recipe:
    """Resolve and validate a recipe file for one profile, and for so many GPUs, if their number is known.

    Raises UserError with one line per mistake.
    """
    values = dict[str, Any]()
    for said in layers(path, profile, gpus):
        values = _merge(values, said)
    values["profile"] = profile
    apply(values, list(overrides))
    return validate(values, str(path))


def layers(path: Path, profile: str, gpus: int | None) -> Iterator[dict[str, Any]]:
    """What the files of a recipe and their sections say, in the order in which later wins."""
    chain = _chain(path)
    placement = _placement(chain, profile, gpus)
    for own in chain:
        sections = own.pop("profiles", {})
        yield from (said for said in (own, sections.get(profile), sections.get(placement)) if said)


def placed(path: Path, profile: str, gpus: int | None) -> dict[str, Any]:
    """What a recipe says for so many GPUs alone."""
    said, chain = dict[str, Any](), _chain(path)
    placement = _placement(chain, profile, gpus)
    for own in chain:
        said = _merge(said, own.get("profiles", {}).get(placement) or {})
    return said


def load_resolved(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read the resolved recipe that a run folder holds.  Raises UserError where it is missing or damaged."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing, so that the settings of the run in {path.parent} are unknown. Put it back, move the "
            "folder away, or start under another name (name=…)."
        )
    values = _yaml(path)
    apply(values, list(overrides))
    return validate(values, str(path), resolved=True)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_resolved` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=False), sort_keys=False, allow_unicode=True)


def validate(values: Mapping[str, Any], where: str, *, resolved: bool = False) -> Recipe:
    """`resolved`: every option is spelled out, so that one without effect is no mistake of the user's."""
    if resolved:
        values = _with_world(moved.update(values))
    else:
        moved.refuse(values, where)
    try:
        return Recipe.model_validate(values, context={"resolved": resolved})
    except ValidationError as error:
        lines = [_explain(item, values) for item in error.errors()]
        raise UserError(f"Recipe {where} is not valid:\n" + "\n".join(f"  - {line}" for line in lines)) from None


def _with_world(values: dict[str, Any]) -> dict[str, Any]:
    """`data.world_seed` was null once, which meant the run's seed; where no environment reads it, it means nothing."""
    data, environment = values.get("data"), values.get("environment")
    if not isinstance(data, Mapping) or data.get("world_seed", 0) is not None:
        return values
    source = registry.SOURCES.get(str(data.get("source")), registry.DEFAULT_ENVIRONMENT)
    name = environment.get("kind", source) if isinstance(environment, Mapping) else source
    try:
        reads = environment_class(str(name), resolved=True)
    except ValueError:  # said when the recipe is validated
        reads = None
    seed = values.get("seed", 0) if reads is None or "data.world_seed" in reads.reads else 0
    return {**values, "data": {**data, "world_seed": seed}}


def compare_command(recipe: Recipe, make: bool = False) -> str:
    """The command that shows a recipe's runs beside each other, for `make` or for `sdpo`."""
    default = type(recipe.run).model_fields["directory"].default
    where = "" if recipe.run.directory == default else f"--runs {shlex.quote(recipe.run.directory)}"
    name = shlex.quote(recipe.recipe)
    if make:
        return f"make compare RECIPE={name}" + (f" ARGS={shlex.quote(where)}" if where else "")
    return f"sdpo compare {name}" + (f" {where}" if where else "")


def _placement(chain: Iterable[Mapping[str, Any]], profile: str, gpus: int | None) -> str | None:
    """Of the sections gpu-N that there are, the one with the largest N up to `gpus`."""
    if profile != "gpu" or gpus is None:
        return None
    names = {name for own in chain for name in own.get("profiles", {}) if _BY_NUMBER.fullmatch(name)}
    numbers = [n for n in (int(name.removeprefix("gpu-")) for name in names) if n <= gpus]
    return f"gpu-{max(numbers)}" if numbers else None


def _chain(path: Path, seen: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """What a file and those that it extends say, the base first."""
    path = path.resolve()
    if path in seen:
        raise UserError(f"Recipe {path} extends itself: {' → '.join(p.name for p in (*seen, path))}.")
    values = _yaml(path)
    base_name = values.pop("extends", None)
    before: list[dict[str, Any]] = []
    if base_name is not None:
        base = path.parent / base_name
        if not base.is_file():
            base = Path(locate(base_name))
        if not base.is_file():
            raise UserError(f"Recipe {path} extends {base_name}, which is not there ({path.parent / base_name}).")
        before = _chain(base, (*seen, path))
    unknown = [n for n in values.get("profiles", {}) if n not in ("cpu", "gpu") and not _BY_NUMBER.fullmatch(n)]
    if unknown:
        raise UserError(
            f"Recipe {path} has a section for unknown profiles {unknown}; known: cpu, gpu, and gpu-N for N GPUs."
        )
    return [*before, values]


def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path} cannot be read ({reason}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of options at its top level.")
    return values


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def apply(values: dict[str, Any], overrides: list[str]) -> None:
    """Overrides in order; a source of rows with other tests leaves nothing of the recipe's section `data`."""
    source = next((text.partition("=")[2] for text in overrides if text.startswith("data.source=")), "")
    if source in registry.ASSERTION_SOURCES and (values.get("data") or {}).get("source") != source:
        values["data"], values["environment"] = {}, {"kind": registry.SOURCES[source]}
        (values.get("evaluation") or {}).pop("training_problems", None)  # speaks of the recipe's own rows, too
    for text in overrides:
        _override(values, text)


def _override(values: dict[str, Any], text: str) -> None:
    key, separator, raw = text.partition("=")
    if not separator or not key:
        raise UserError(f"An override reads key=value (for example learner.lr=1e-5), not {text!r}.")
    if key == "profile":
        raise UserError("The profile is chosen by PROFILE=… (make) or --profile (sdpo), which also picks its settings.")
    try:
        value = read_value(raw, _annotation(key, values))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2025-02-30
        raise UserError(f"The value of {text!r} is not valid YAML: {error}") from None
    *parents, leaf = key.split(".")
    node = values
    for part in parents:
        child = node.get(part)
        node[part] = child = dict(child) if isinstance(child, Mapping) else {}
        node = child
    if value is None and not _nullable(key, values):
        node.pop(leaf, None)  # null takes the option out of the recipe: its default counts again
    else:
        node[leaf] = value


def _explain(error: Any, values: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown option {path}.{nearest(path, option_paths(Recipe, values))}"
    if error["type"] == "value_error":
        return f"{path + ': ' if path else ''}{error['msg'].removeprefix('Value error, ')}"
    if error["type"] == "missing":
        return f"{path} is required"
    return f"{path}: {error['msg']} (given: {error['input']!r})"


def option_paths(model: type[BaseModel], values: Mapping[str, Any] | None = None, prefix: str = "") -> list[str]:
    """Every option's dotted path; those of algorithm and environment are of the classes that `values` name."""
    paths = []
    for name in model.model_fields:
        paths.append(prefix + name)
        if (kind := _section(model, name, values or {})) is not None:
            paths += option_paths(kind, values, f"{prefix}{name}.")
    return paths


def _section(model: type[BaseModel], name: str, values: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model of a section: that of the algorithm or environment which `values` names; None: no section."""
    data = values.get("data")
    source = str(data.get("source")) if isinstance(data, Mapping) else ""
    chosen = {
        "algorithm": ("name", registry.DEFAULT_ALGORITHM, algorithm_class),
        "environment": ("kind", registry.SOURCES.get(source, registry.DEFAULT_ENVIRONMENT), environment_class),
    }
    if model is Recipe and name in chosen:
        key, usual, find = chosen[name]
        given = values.get(name)
        try:
            return find((given.get(key) if isinstance(given, Mapping) else None) or usual).Settings
        except ValueError:  # said when the recipe is validated
            return section(Recipe.model_fields[name].annotation)
    field = model.model_fields.get(name)
    return None if field is None else section(field.annotation)


def _annotation(path: str, values: Mapping[str, Any]) -> Any:
    """The type of an option; None for one that is unknown."""
    model: type[BaseModel] | None = Recipe
    *parents, leaf = path.split(".")
    for part in parents:
        model = None if model is None else _section(model, part, values)
    field = None if model is None else model.model_fields.get(leaf)
    return None if field is None else field.annotation


def _nullable(path: str, values: Mapping[str, Any]) -> bool:
    annotation = _annotation(path, values)
    return annotation is None or type(None) in getattr(annotation, "__args__", ())


def nearest(given: str, known: Iterable[str]) -> str:
    """ " Did you mean …?" with the likeliest of the known names, or ""."""
    known = list(known)
    match = [k for k in known if k.split(".")[-1] == given.split(".")[-1]]  # right name, wrong section
    match.sort(key=lambda k: k.count(".") != given.count("."))
    match = match or difflib.get_close_matches(given, known, 1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def recipe_names() -> list[str]:
    """The families under recipes/, by name."""
    return sorted(p.name for p in RECIPES.iterdir() if p.is_dir()) if RECIPES.is_dir() else []
