"""The name of a run that was not given one: what it is, what differs from the recipe, and the seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from sdpo.config.files import load_recipe, placed
from sdpo.config.identity import flatten
from sdpo.config.resume import STEPS, changes, is_free
from sdpo.config.schema import Recipe
from sdpo.errors import UserError

LONGEST = 100  # characters that the differences may take
_ELSEWHERE = {"seed", "name", "algorithm.name", STEPS}  # said elsewhere in the name; a longer run is the same run


def is_named(recipe: Recipe) -> bool:
    """Whether the recipe or the command gave the run its name."""
    return "name" in recipe.model_fields_set


def named(file: Path, profile: str, overrides: Sequence[str], mark: str = "", gpus: int | None = None) -> Recipe:
    """The recipe; without a name of its own, `<recipe>-<algorithm>-<what differs>-seed<k>`.

    mark: what a name of its own is followed by.  gpus: how many there are, if that is known.
    """
    recipe = load_recipe(file, profile, overrides, gpus)
    name = recipe.name + mark if is_named(recipe) else recipe.name
    if not is_named(recipe) and (differing := _differing(recipe, file, overrides, gpus)):
        name = f"{recipe.recipe}-{recipe.algorithm.label}-{_short('-'.join(differing))}-seed{recipe.seed}"
    return recipe.model_copy(update={"name": name})


def _differing(recipe: Recipe, file: Path, overrides: Sequence[str], gpus: int | None) -> list[str]:
    """Options of the command, or for so many GPUs, that make another run than the recipe's, as option=value."""
    given = {option: str(value) for option, value in flatten(placed(file, recipe.profile, gpus)).items()}
    given |= {text.partition("=")[0]: text.partition("=")[2] for text in overrides}
    try:
        differ = [change.option for change in changes(load_recipe(file, recipe.profile), recipe)]
    except UserError:  # it is no recipe without them
        differ = list(given)
    values = flatten(recipe.model_dump(mode="json"))
    told = []
    for option in sorted(o for o in given.keys() - _ELSEWHERE if not is_free(o, given[o])):
        if any(f"{d}.".startswith(f"{option}.") or f"{option}.".startswith(f"{d}.") for d in differ):
            value = values.get(option, given[option])
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            told.append(f"{option}={'null' if value is None else text}")
    return [re.sub(r"[^\w.+=@,~-]+", "_", text).rstrip("_") for text in told]


def _short(text: str) -> str:
    """A name that is too long ends with a hash of the whole."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]}~{digest}"
