"""The declared studies: parts, each a list of named runs (`studies.yaml` says how a run is put together)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdpo.config import registry
from sdpo.config.paths import locate
from sdpo.config.resume import is_free
from sdpo.errors import UserError

DECLARED = Path(__file__).with_name("studies.yaml")
CHOSEN, TUNING, AGAIN = "chosen", "tuning", "again"
ALGORITHMS = ("sdpo", "grpo")  # those that are tuned and compared; other ones run with their recipe's settings

Chosen = Mapping[str, Sequence[str]]  # algorithm → its chosen settings, as key=value


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Variant(_Declared):
    """One run of a part, before its worlds."""

    algorithm: str = Field(pattern="|".join(registry.ALGORITHMS))
    set: tuple[str, ...] = ()
    group: str = ""  # what it is compared within, where a part has several comparisons
    label: str = ""


class Drawn(_Declared):
    """Runs of other parts, each one once, drawn by the seed."""

    parts: tuple[str, ...]
    runs: int = Field(ge=1)
    seed: int


class Part(_Declared):
    title: str
    question: str
    recipe: str | None = None  # None: that of the studies
    worlds: tuple[int, ...]
    seeds: tuple[int, ...] | None = None  # None: the world is the seed
    base: str | None = Field(None, pattern=CHOSEN)
    tuning: str = TUNING  # the part whose choice `base: chosen` takes
    set: tuple[str, ...] = ()  # options of all its runs
    needs: dict[str, str] = {}  # model folders without which the part cannot run → the command that makes each
    runs: dict[str, Variant]
    again: Drawn | None = None  # what else it runs, with its `set`

    @property
    def missing(self) -> str:
        """What the part needs and is not there, with the commands that make it; empty if nothing is."""
        absent = {path: made for path, made in self.needs.items() if not Path(locate(path)).is_dir()}
        return ", ".join(f"{path} (made by: {made})" for path, made in absent.items())


class Studies(_Declared):
    recipe: str
    profile: str
    common: tuple[str, ...] = ()
    parts: dict[str, Part]

    @property
    def tunings(self) -> list[str]:
        """The parts by which settings are chosen."""
        return list(dict.fromkeys(part.tuning for part in self.parts.values() if part.base == CHOSEN))


@dataclass(frozen=True)
class RunSpec:
    """One declared run.  `overrides` are its options after those of `common`; `name` is unique within its part."""

    part: str
    variant: str
    name: str
    algorithm: str
    world: int
    seed: int
    group: str
    label: str
    recipe: str
    profile: str
    common: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.part}/{self.name}"


def load_studies(path: Path = DECLARED) -> Studies:
    """Raises UserError for a file that is not there or does not declare studies."""
    try:
        return Studies.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise UserError(f"The studies {path} cannot be read ({error}).") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path} does not declare studies: {error}") from None


def specs(studies: Studies, part: str, chosen: Chosen | None) -> list[RunSpec]:
    """The runs of a part, world by world.  `chosen`: by its tuning; None where the part does not build on it."""
    declared = studies.parts[part]
    if declared.base == CHOSEN and chosen is None:
        raise UserError(
            f"{part} builds on the chosen settings, and none are chosen yet. Run the tuning, which chooses them: "
            f"python -m studies results {declared.tuning}"
        )
    result = []
    for world in declared.worlds:
        for seed in (world,) if declared.seeds is None else declared.seeds:
            for name, variant in declared.runs.items():
                result.append(_spec(studies, part, name, variant, world, seed, chosen))
    return result if declared.again is None else result + _drawn(studies, part, declared.again, chosen)


def _drawn(studies: Studies, part: str, again: Drawn, chosen: Chosen | None) -> list[RunSpec]:
    """In the order of their declaration, under the names that they have there."""
    once: dict[tuple[str, ...], RunSpec] = {}
    for spec in (spec for other in again.parts for spec in specs(studies, other, chosen)):
        decides = (text for text in spec.overrides if not is_free(*text.split("=", 1)))
        once.setdefault((spec.recipe, spec.algorithm, *decides), spec)
    every = list(once.values())
    order = np.random.default_rng(again.seed).permutation(len(every))
    return [
        replace(
            spec,
            part=part,
            name=spec.id.replace("/", "-"),
            group=AGAIN,
            label=spec.id,
            overrides=last_word(spec.overrides + studies.parts[part].set),
        )
        for spec in (every[i] for i in sorted(order[: again.runs]))
    ]


def _spec(
    studies: Studies, part: str, name: str, variant: Variant, world: int, seed: int, chosen: Chosen | None
) -> RunSpec:
    declared = studies.parts[part]
    base = tuple(chosen.get(variant.algorithm, ())) if declared.base == CHOSEN and chosen is not None else ()
    return RunSpec(
        part=part,
        variant=name,
        name=f"{name}-world{world}" + (f"-seed{seed}" if declared.seeds is not None else ""),
        algorithm=variant.algorithm,
        world=world,
        seed=seed,
        group=variant.group,
        label=variant.label or name,
        recipe=declared.recipe or studies.recipe,
        profile=studies.profile,
        common=studies.common,
        overrides=(f"seed={seed}", f"data.world_seed={world}", *last_word(base + declared.set + variant.set)),
    )


def last_word(overrides: Sequence[str]) -> tuple[str, ...]:
    """Each key once, with its last value, in the order in which the keys came up."""
    values: dict[str, Any] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        values[key] = value
    return tuple(f"{key}={value}" for key, value in values.items())
