"""`sdpo discover`: how many attempts it takes to solve hard questions, by training on each and by sampling."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.run_name import named
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.discovery.record import DiscoveryFolder
from sdpo.errors import UserError
from sdpo.tracking import Console
from sdpo.tracking.lock import FolderLock
from sdpo.tracking.run_folder import check_no_link
from sdpo.training.parts import check_numbers, prepared
from sdpo.training.private_folder import private_folder

# What must be the same for all methods, or they would not search the same questions in the same way.
_ALIKE = ("model", "environment", "data", "sandbox", "discovery", "seed")
_ALIKE_OPTIONS = ("temperature", "top_p", "top_k", "max_response_tokens", "responses")  # of section rollout


def run(options) -> int:
    profile, reason = choose_profile(options.profile)
    gpus = known_gpus(profile)
    first = named(find_recipe(options.recipe, options.algorithm), profile, options.overrides, gpus=gpus)
    say(f"Profile {profile}: {reason}.")
    recipes = {
        algorithm: first
        if algorithm == first.algorithm.label
        else load_recipe(find_recipe(options.recipe, algorithm), profile, options.overrides, gpus)
        for algorithm in first.discovery.algorithms or (first.algorithm.label,)
    }
    _check(recipes)
    path = (Path(first.run.directory) / first.name).absolute()
    check_no_link(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(path)
    lock.acquire()
    try:
        return _discover(recipes, path, first.name)
    finally:
        lock.release()


def _check(recipes: dict[str, Recipe]) -> None:
    """Raises UserError where the methods could not be compared, or could not search."""
    (name, first), *others = recipes.items()
    for other, recipe in others:
        for section in _ALIKE:
            if getattr(recipe, section) != getattr(first, section):
                raise UserError(f"{section} differs between {name} and {other}: a discovery compares methods alone.")
        for option in _ALIKE_OPTIONS:
            if getattr(recipe.rollout, option) != getattr(first.rollout, option):
                raise UserError(f"rollout.{option} differs between {name} and {other}: give both the same value.")
    for algorithm, recipe in recipes.items():
        if recipe.environment.turns > 1:
            raise UserError("A discovery searches single turns: set environment.turns=1.")
        if recipe.rollout.source != "policy":
            raise UserError(f"{algorithm} learns from demonstrations, and a discovery has none: leave it out.")
        if recipe.learner.updates_per_batch > 1:
            raise UserError("A discovery has one question per step: set learner.updates_per_batch=1.")
    if first.context.max_reprompt_tokens > first.context.max_prompt_tokens:
        raise UserError(
            f"Attempts that are told feedback have prompts of up to context.max_reprompt_tokens="
            f"{first.context.max_reprompt_tokens} tokens, which engines must take: set context.max_prompt_tokens to "
            "at least that."
        )


def _discover(recipes: dict[str, Recipe], path: Path, name: str) -> int:
    recipe, folder = next(iter(recipes.values())), DiscoveryFolder(path)
    folder.begin(recipes)
    folder.repair()
    with (
        Console(name, 0) as console,
        private_folder(None, console.message),
        prepared(recipe, console) as parts,
    ):
        from sdpo.discovery.page import found, write_page
        from sdpo.discovery.run import discover

        with console.phase("checking the model", announce=True):
            note = check_numbers(recipe)
        if note is not None:
            console.message(note)
        asyncio.run(discover(recipes, parts, folder, console))
        result = found(folder, list(recipes), recipe.discovery.budget)
        console.message(result.sentence)
        console.message(f"The page: {write_page(path, folder, result, name)}")
    return 0
