"""Puzzles of the library `reasoning-gym` and its scores.  Grading runs in worker processes."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies' own code
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS
    from reasoning_gym.utils import SYSTEM_PROMPTS, extract_answer

from sdpo.errors import UserError

CHUNK = 500  # tasks of one seed, the library's own size of a data set: some families plan a set as a whole
OURS = ("seed", "size")  # options of a family that are not the user's to set


@lru_cache(maxsize=4)
def puzzles(family: str, options: str, seed: int) -> Any:
    """The library's data set of one seed; `options` as JSON."""
    return reasoning_gym.create_dataset(family, seed=seed, size=CHUNK, **_arguments(family, json.loads(options)))


def _arguments(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the library takes them: those of a mixture hold objects of its own."""
    if family != "composite":
        return dict(options)
    parts = [DatasetSpec(**{"weight": 1.0, "config": {}, **part}) for part in options.get("datasets", ())]
    return {**options, "datasets": parts}


def check_family(family: str, options: Mapping[str, Any]) -> None:
    """Raises UserError where the library does not have the family, or refuses its options."""
    if family not in DATASETS:
        near = difflib.get_close_matches(family, DATASETS, 3, cutoff=0.4)
        raise UserError(
            f"environment.family={family} is not a data set of reasoning-gym."
            f"{' Did you mean ' + ' or '.join(near) + '?' if near else ''} There are {len(DATASETS)}: "
            f"{', '.join(sorted(DATASETS))}."
        )
    _, settings = DATASETS[family]
    known = [field.name for field in fields(settings) if field.name not in OURS]
    if unknown := [name for name in options if name not in known]:
        raise UserError(
            f"environment.options.{unknown[0]} is not an option of {family}; its options are {', '.join(known)}."
        )
    try:
        made = settings(**_arguments(family, options))
        if hasattr(made, "validate"):  # two have none
            made.validate()
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"environment.options of {family} are refused: {error or type(error).__name__}.") from error


def system_prompt(name: str) -> str:
    if name not in SYSTEM_PROMPTS:
        raise UserError(f"environment.prompt={name} is unknown; the library has {', '.join(SYSTEM_PROMPTS)}.")
    return str(SYSTEM_PROMPTS[name])


def extracted(response: str) -> str | None:
    """What stands between the last <answer> tags, by the library."""
    end = response.rfind("</answer>") + len("</answer>")  # an opening tag without an end costs the library n² steps
    answer: str | None = extract_answer(response[:end])
    return answer


def judge(family: str, options: str, answer: str, entry: Mapping[str, Any]) -> float | None:
    """The library's score; None where it cannot read the answer."""
    try:
        return float(puzzles(family, options, 0).score_answer(answer, dict(entry)))
    except Exception:
        return None
