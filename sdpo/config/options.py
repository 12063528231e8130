"""Every option of a recipe in words: what it may be, its default, its meaning, and what a bundled recipe sets it to.

Made from the schema and from the `Settings` of every registered algorithm and environment; `sdpo options` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sdpo.config import registry
from sdpo.config.files import RECIPES, nearest
from sdpo.config.override_values import section
from sdpo.config.schema import Recipe, algorithm_class, environment_class
from sdpo.errors import UserError

SHOWN_RECIPE, REQUIRED = "livecodebench", "required"
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_READ = ("data.", "sandbox.")  # sections of which an environment reads what its `reads` lists
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


@dataclass(frozen=True)
class Setting:
    """What one of the shown recipe's files sets an option to, as it stands there, with the comment behind it."""

    profile: str  # "": both
    value: str
    comment: str = ""


@dataclass(frozen=True)
class Option:
    """An option, or a section of them (`is_section`)."""

    path: str
    meaning: str
    allowed: str = ""
    default: str = ""
    owners: tuple[str, ...] = ()  # algorithms or environments that have it, or read it; (): all
    is_section: bool = False
    set_by: str = ""  # algorithm of the shown recipe's file
    settings: tuple[Setting, ...] = ()


def all_options() -> list[Option]:
    """In the order of the schema; what only some algorithms or environments have comes after what all of them have."""
    environments = {name: environment_class(name) for name in registry.ENVIRONMENTS}
    own = {
        "algorithm": {name: algorithm_class(name).Settings for name in registry.ALGORITHMS},
        "environment": {name: kind.Settings for name, kind in environments.items()},
    }
    found = list(_walk(Recipe))
    for name, classes in own.items():
        last = max(index for index, option in enumerate(found) if option.path.startswith(f"{name}."))
        found[last + 1 : last + 1] = _of_classes(name, classes)
    found = [replace(o, owners=_readers(o, environments)) if o.path.startswith(_READ) else o for o in found]
    shown = _shown_settings()
    return [replace(o, set_by=shown[o.path][0], settings=shown[o.path][1]) if o.path in shown else o for o in found]


def select(keys: Sequence[str], options: Sequence[Option] | None = None) -> list[Option]:
    """The options of these names, a section's with all that is in it.  Raises UserError for one that is unknown."""
    options = all_options() if options is None else options
    for key in keys:
        if not any(option.path == key for option in options):
            suggestion = nearest(key, [option.path for option in options])
            raise UserError(f"There is no option {key}.{suggestion} All of them: sdpo options")
    return [o for o in options if not keys or any(f"{o.path}.".startswith(f"{key}.") for key in keys)]


# ------------------------------------------------------------------------------------------------------- the schema


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Own options of algorithms and environments stay out: no class is named here."""
    described = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        path, inner = prefix + name, section(field.annotation)
        if inner is None:
            yield _option(path, field, described[name])
        else:
            yield Option(path, field.description or "", is_section=True)
            yield from _walk(inner, f"{path}.")


def _option(path: str, field: FieldInfo, described: Mapping[str, Any]) -> Option:
    default = REQUIRED if field.is_required() else _written(described["default"])
    return Option(path, field.description or "", _allowed(described), default)


def _of_classes(prefix: str, classes: Mapping[str, type[BaseModel]]) -> list[Option]:
    """The options that only some classes have, each once with all that have it."""
    common = {option.path for option in _walk(section(Recipe.model_fields[prefix].annotation) or Recipe, f"{prefix}.")}
    owners: dict[Option, list[str]] = {}
    for name, model in classes.items():
        for option in _walk(model, f"{prefix}."):
            if option.path not in common:
                owners.setdefault(option, []).append(name)
    return [replace(option, owners=tuple(names)) for option, names in owners.items()]


def _readers(option: Option, environments: Mapping[str, Any]) -> tuple[str, ...]:
    """The environments to which an option of `data` or `sandbox` means something; (): all."""
    names = tuple(name for name, kind in environments.items() if ".".join(option.path.split(".")[:2]) in kind.reads)
    return () if len(names) == len(environments) else names


def _allowed(described: Mapping[str, Any]) -> str:
    """What an option takes, from its JSON schema."""
    if "anyOf" in described:
        return " or ".join(_allowed(kind) for kind in described["anyOf"])
    if "const" in described or "enum" in described:
        return ", ".join(_written(value) for value in described.get("enum", [described.get("const")]))
    kind = described.get("type")
    if kind == "array":
        items = [_allowed(item) for item in described.get("prefixItems", ())]
        return f"[{', '.join(items)}]" if items else f"list of {_allowed(described['items'])}"
    if kind == "object":
        return "mapping"
    if "format" in described:
        return str(described["format"])
    bounds = [f"{sign} {_written(described[bound])}" for bound, sign in _BOUNDS.items() if bound in described]
    return " ".join([_KINDS.get(str(kind), "any value"), " and ".join(bounds)]).rstrip()


def _written(value: Any) -> str:
    """A value as one writes it behind `key=`."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


# ----------------------------------------------------------------------------------------------- what a recipe sets


def _shown_settings() -> dict[str, tuple[str, tuple[Setting, ...]]]:
    """Option → (algorithm, settings): of the default algorithm's file, else of the first other one that sets it."""
    folder, found = RECIPES / SHOWN_RECIPE, dict[str, tuple[str, tuple[Setting, ...]]]()
    for algorithm in registry.ALGORITHMS:
        by_place: dict[tuple[str, str], Setting] = {}
        for file in (RECIPES / "placements.yaml", folder / "base.yaml", folder / f"{algorithm}.yaml"):
            text = file.read_text(encoding="utf-8")
            by_place |= {(path, setting.profile): setting for path, setting in read_settings(text)}
        for path in {path: None for path, _ in by_place}:
            found.setdefault(path, (algorithm, tuple(s for (p, _), s in by_place.items() if p == path)))
    return found


def read_settings(text: str) -> Iterator[tuple[str, Setting]]:
    """(option, setting) for every option that the YAML text of a recipe sets, in its order."""
    lines = text.splitlines()

    def below(node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, Setting]]:
        for key, value in node.value:
            here = (*path, str(key.value))
            if isinstance(value, yaml.MappingNode):
                yield from below(value, here)
                continue
            in_profile = here[0] == "profiles"
            written = text[value.start_mark.index : value.end_mark.index]
            _, _, comment = lines[value.end_mark.line][value.end_mark.column :].partition("#")
            yield (
                ".".join(here[2:] if in_profile else here),
                Setting(here[1] if in_profile else "", written, comment.strip()),
            )

    yield from below(yaml.compose(text, Loader=yaml.SafeLoader), ())


# --------------------------------------------------------------------------------------------------------- as text


def settings_text(option: Option, quote: str = "") -> str:
    """What the shown recipe sets: "gpu 1.0e-6 (Table); cpu 1.0e-3"; an algorithm that is not the default is named."""
    parts = [
        f"{s.profile} {quote}{s.value}{quote}".strip() + (f" ({s.comment})" if s.comment else "")
        for s in option.settings
    ]
    other = f"{option.set_by}: " if parts and option.set_by != registry.DEFAULT_ALGORITHM else ""
    return other + "; ".join(parts)


def plain(options: Iterable[Option]) -> Iterator[str]:
    """Lines for a terminal."""
    for option in options:
        if option.is_section:
            yield f"{option.path}: {option.meaning}"
            continue
        yield f"{option.path}  {option.allowed}  (default: {option.default})"
        owners = f" [{', '.join(option.owners)}]" if option.owners else ""
        yield f"    {option.meaning}{owners}"
        if option.settings:
            yield f"    {SHOWN_RECIPE}: {settings_text(option)}"


_HEAD = """# Every option of a recipe
<!-- Written by `sdpo options --markdown`; a test compares. -->

`sdpo options` prints this list in a terminal, `sdpo options teacher learner.lr` a part of it. An option is given as
`section.option=value` behind `sdpo train` or `make train`, or in a recipe's YAML. One that is unknown is refused, and
so is one that has no effect beside the others. Names in parentheses are the algorithms or environments that have, or
read, the option, where not all of them do.

The last column is what `recipes/livecodebench/` sets for SDPO, or for another algorithm where SDPO has no use for the
option, with the source that is cited there. "Table" and "Code" are the table of hyper-parameters and the released
configuration of arXiv 2601.20802; what "Paper" is, the algorithm's recipe says. "ours", and all that has no source, was
chosen for this project.
"""
_TABLE = f"| option | takes | meaning | {SHOWN_RECIPE} |\n|---|---|---|---|"


def markdown(options: Sequence[Option]) -> str:
    """The page docs/options.md."""
    top = [option for option in options if "." not in option.path and not option.is_section]
    parts = [_HEAD, "## At the top", _TABLE, *map(_row, top)]
    for head in (option for option in options if option.is_section and "." not in option.path):
        parts += ["", f"## {head.path}", f"{head.meaning[0].upper()}{head.meaning[1:]}.", "", _TABLE]
        parts += [_row(o) for o in options if o.path.startswith(f"{head.path}.") and not o.is_section]
    return "\n".join(parts) + "\n"


def _row(option: Option) -> str:
    owners = f" ({', '.join(option.owners)})" if option.owners else ""
    default = option.default if option.default == REQUIRED else f"default `{option.default}`"
    takes = f"{_cell(option.allowed)}; {default}"
    cells = (takes, _cell(option.meaning), _cell(settings_text(option, "`")))
    return f"| `{option.path}`{owners} | " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
