"""Which runs are meant: recipes, runs and patterns of names, each with a label or without."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdpo.config.files import recipe_names
from sdpo.errors import UserError
from sdpo.tracking.run_info import RunInfo


@dataclass(frozen=True)
class Chosen:
    """A run folder, the label that it was given, and whether it was named itself: then it is shown in any case."""

    path: Path
    label: str | None = None
    by_name: bool = True


def choose(words: Sequence[str], runs_dir: Path) -> list[Chosen]:
    """The runs that `words` mean: a recipe's, one by its name or path, those of a pattern; each as WORD or WORD:LABEL.

    Of a recipe or a pattern, those that have recorded something.  Raises `UserError` for a word that means none, and
    for a run with two labels.
    """
    found: dict[Path, Chosen] = {}
    for text in words:
        word, _, label = text.partition(":")
        for chosen in _meant(word, label or None, runs_dir):
            key = chosen.path.resolve()
            before = found.get(key, chosen)
            if before.label and chosen.label and before.label != chosen.label:
                raise UserError(
                    f"{chosen.path.name} is given the labels {before.label!r} and {chosen.label!r}; give it one."
                )
            found[key] = Chosen(before.path, before.label or chosen.label, before.by_name or chosen.by_name)
    return list(found.values())


def _meant(word: str, label: str | None, runs_dir: Path) -> list[Chosen]:
    of_recipe, recipes = _of_recipe(word, runs_dir)
    if of_recipe:
        return [Chosen(path, label, by_name=False) for path in of_recipe]
    for path in (runs_dir / word, Path(word)):
        if word and (path / "run.json").is_file():
            return [Chosen(path, label)]
    if re.search(r"[*?\[]", word):
        paths = sorted({*glob.glob(str(runs_dir / word)), *glob.glob(word)})
        if matching := [Path(path) for path in paths if _has_rows(Path(path))]:
            return [Chosen(path, label, by_name=False) for path in matching]
        raise UserError(f"No run in {runs_dir} that has recorded something matches {word!r}. {_there(runs_dir)}")
    raise UserError(_nothing(word, runs_dir, recipes))


def _of_recipe(recipe: str, runs_dir: Path) -> tuple[list[Path], set[str]]:
    """Its runs that have recorded something, and the other recipes that there are runs of."""
    found, others = [], set()
    for file in sorted(runs_dir.glob("*/run.json")):
        info = RunInfo.read(file)
        if info.recipe != recipe:
            others.add(info.recipe)
        elif _has_rows(file.parent):
            found.append(file.parent)
    return found, others


def _has_rows(run: Path) -> bool:
    metrics = run / "metrics.jsonl"
    return (run / "run.json").is_file() and metrics.exists() and metrics.stat().st_size > 0


def _there(runs_dir: Path) -> str:
    names = sorted(file.parent.name for file in runs_dir.glob("*/run.json"))
    return f"Runs there: {', '.join(names)}." if names else "There are no runs there."


def _nothing(word: str, runs_dir: Path, recipes: set[str]) -> str:
    known = recipe_names()
    runs = [file.parent.name for file in runs_dir.glob("*/run.json")]
    near = difflib.get_close_matches(word, sorted({*known, *recipes, *runs}), 1)
    has = f" (it has runs of: {', '.join(sorted(recipes))})" if recipes else ""
    remedy = (
        f"Make one with: make train RECIPE={word}"
        if word in known
        else f"{f'Did you mean {near[0]}? ' if near else ''}Recipes: {', '.join(known)}. {_there(runs_dir)}"
    )
    return f"There is no run {word!r}, and none of a recipe of that name, in {runs_dir}{has}. {remedy}"
