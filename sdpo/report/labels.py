"""What groups of one comparison are called: their algorithm, and what differs where that does not tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.identity import configuration
from sdpo.errors import UserError
from sdpo.report.figures import display
from sdpo.report.groups import CODE, Group, said
from sdpo.report.runs import Run

_SHOWN = 3  # differences in a label


def labels(groups: Sequence[Group]) -> list[str]:
    """One for each group: "sdpo", or "SDPO, teacher.kind=trust_region"; a given label stands for the algorithm.

    Of several groups of one name, the one nearest to the recipe's own settings keeps the plain name.
    """
    names: dict[int, str] = {}
    for base in dict.fromkeys(one.first.label for one in groups):
        places = [place for place, one in enumerate(groups) if one.first.label == base]
        plain = _plain([groups[place] for place in places])
        differing = {place: _differing(groups[place].options, plain.options) for place in places}
        texts = {place: _text(display(base), told, _SHOWN) for place, told in differing.items()}
        for place, told in differing.items():
            alone = list(texts.values()).count(texts[place]) == 1
            names[place] = base if not told else texts[place] if alone else _text(display(base), told, len(told))
    return [names[place] for place in range(len(groups))]


def _text(name: str, told: Sequence[str], most: int) -> str:
    more = [f"and {len(told) - most} more"] if len(told) > most else []
    return ", ".join([name, *told[:most], *more])


def _differing(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Options with another value, as option=value; those that are null for want of a meaning only where nothing else
    differs."""
    found = {key: mine.get(key) for key in {**mine, **other} if mine.get(key) != other.get(key)}
    told = {key: value for key, value in found.items() if value is not None} or found
    return [f"other {key}" if key.startswith(CODE) else f"{key}={said(value)}" for key, value in told.items()]


def _plain(groups: Sequence[Group]) -> Group:
    """The one whose settings are nearest to its recipe's, the oldest of equals."""
    return min(groups, key=lambda one: (_distance(one.first), min(run.info.created for run in one.runs)))


def _distance(run: Run) -> int:
    """How many options differ from the recipe; 0 for a recipe that is not bundled: nobody knows where it lies."""
    try:
        recipe = load_recipe(find_recipe(run.info.recipe, run.info.algorithm), run.info.profile)
    except UserError:
        return 0
    plain = configuration(recipe.model_dump(mode="json"))
    return sum(run.configuration.get(key) != plain.get(key) for key in {**plain, **run.configuration})
