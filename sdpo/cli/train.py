"""`sdpo train`: resolve the recipe, then resume, refuse or start the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdpo.algorithms import build_algorithm
from sdpo.config.files import compare_command, find_recipe, load_recipe, load_resolved
from sdpo.config.hardware import choose_profile
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.tracking import FINISHED, Console, RunFolder, set_aside
from sdpo.tracking.run_folder import check_no_link
from sdpo.training.checkpoints import Checkpoints
from sdpo.training.interrupt import at_end
from sdpo.training.parts import check_numbers, prepared
from sdpo.training.private_folder import private_folder


def run(options) -> int:
    profile, reason = choose_profile(options.profile, plan_only=options.dry_run)
    recipe = load_recipe(find_recipe(options.recipe, options.algorithm), profile, options.overrides)
    say(f"Profile {profile}: {reason}.")
    if options.dry_run:
        from sdpo.cli.plan import print_plan

        print_plan(recipe)
        return 0
    path = (Path(recipe.run.directory) / recipe.name).absolute()  # workers on other machines have other current folders
    check_no_link(path)
    if options.fresh and (old := set_aside(path)):
        say(f"Set the existing run aside as {old}.")
    folder = RunFolder(path)
    if folder.info is not None:
        _refuse_other_settings(recipe, load_resolved(path / "recipe.yaml"), path, folder.info.status)
    if folder.info is not None and folder.info.status == FINISHED:
        say(
            f"{path} is finished; nothing to do. See `{compare_command(recipe)}`; to start afresh: --fresh "
            "(ARGS=--fresh with make), or another name (name=…)."
        )
        return 0
    return _train(recipe, folder)


def _refuse_other_settings(recipe: Recipe, before: Recipe, path: Path, status: str) -> None:
    """A resumed run must be the run that was begun; one that never came to a checkpoint makes room for another."""
    if recipe != before:
        if Checkpoints(path / "checkpoints", 0).last() is None:
            say(f"Set aside as {set_aside(path)}: a run with other settings that had not saved anything yet.")
            return
        old, new = before.model_dump(mode="json"), recipe.model_dump(mode="json")
        raise UserError(
            f"{path} holds a run ({status}) with other settings ({', '.join(_differences(old, new))}). Resume it with "
            "the settings that it was begun with, give this run another name (name=…), or start afresh (--fresh)."
        )


def _differences(old, new, prefix: str = "") -> list[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix[:-1]}: {old} → {new}"]
    return [d for key in old | new for d in _differences(old.get(key), new.get(key), f"{prefix}{key}.")]


def _train(recipe: Recipe, folder: RunFolder) -> int:
    algorithm = build_algorithm(recipe)
    with (
        folder,  # first: a second process on the same run is refused before it starts anything
        at_end(folder.close),
        Console(recipe.name, recipe.run.steps) as console,
        private_folder(folder.path, console.message),
        prepared(recipe, console) as parts,
    ):
        from sdpo.training.launch import train

        with console.phase("checking the model", announce=True):
            check_numbers(recipe)
        return asyncio.run(train(recipe, algorithm, parts, folder, console))
