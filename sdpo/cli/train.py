"""`sdpo train`: resolve the recipe, then resume, refuse, fork or start the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdpo.algorithms import build_algorithm
from sdpo.checkpoints.mirror import Mirror
from sdpo.config.discovery import refuse_recipe
from sdpo.config.files import compare_command, find_recipe, load_recipe, load_resolved
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.resume import refused
from sdpo.config.run_name import is_named, named
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.envs import build_environment
from sdpo.errors import UserError
from sdpo.tracking import FINISHED, Console, RunFolder, set_aside
from sdpo.tracking.run_folder import check_no_link
from sdpo.tracking.run_info import now
from sdpo.training.checkpoints import Checkpoints
from sdpo.training.fetching import answering, fetch, is_complete
from sdpo.training.fitting import fitted
from sdpo.training.interrupt import Signals, at_end
from sdpo.training.mirroring import Mirroring, mirror_of
from sdpo.training.private_folder import private_folder


def run(options) -> int:
    profile, reason = choose_profile(options.profile, plan_only=options.dry_run)
    file = find_recipe(options.recipe, options.algorithm)
    gpus, seeds = known_gpus(profile), _seeds(options)
    for number, seed in enumerate(seeds, 1):
        recipe, source = _resolved(options, file, profile, gpus, seed)
        if number == 1:
            say(f"Profile {profile}: {reason}.")
        if len(seeds) > 1:
            say(f"Run {number} of {len(seeds)}: {recipe.name}")
        if Signals.active is not None:
            Signals.active.again()
        if status := _run(options, file, gpus, recipe, source):
            return status
    return 0


def _seeds(options) -> list[int | None]:
    """Those of --seeds; [None] without: the recipe's own."""
    if options.seeds is None:
        return [None]
    words = options.seeds.split(",")
    if not all(word.isascii() and word.isdigit() for word in words) or len(set(map(int, words))) < len(words):
        raise UserError(f"--seeds {options.seeds}: give whole numbers with commas between them, each once: 0,1,2.")
    if given := [text for text in options.overrides if text.startswith("seed=")]:
        raise UserError(f"{given[-1]} and --seeds {options.seeds} contradict each other; leave one of them out.")
    return [int(word) for word in words]


def _resolved(options, file: Path, profile: str, gpus: int | None, seed: int | None) -> tuple[Recipe, Path | None]:
    """The recipe of one run, and the run that it starts from (--fork)."""
    overrides = options.overrides if seed is None else [*options.overrides, f"seed={seed}"]
    mark = "" if seed is None else f"-seed{seed}"
    recipe = named(file, profile, overrides, mark, gpus)
    refuse_recipe(recipe)
    if options.fork is None:
        return recipe, None
    source, plain = _folder(recipe), load_recipe(file, profile, overrides, gpus)
    if RunFolder(source).info is None and not is_named(plain):
        source = _folder(plain)  # what differs from the recipe differs in the fork alone
    return load_recipe(file, profile, [*overrides, f"name={options.fork}{mark}"], gpus), source


def _run(options, file: Path, gpus: int | None, recipe: Recipe, source: Path | None) -> int:
    """One run: its plan, or to its end."""
    path = _folder(recipe)
    mirror, recorded = mirror_of(recipe, path), path / "recipe.yaml"
    if options.dry_run:
        from sdpo.cli.plan import print_plan

        print_plan(fitted(recipe, file, options.overrides, gpus, None if options.fresh else recorded))
        return 0
    check_no_link(path)
    if options.fresh and (old := _set_aside(path, mirror)):
        say(f"Set the existing run aside as {old}.")
    folder = RunFolder(path)
    if mirror is not None:
        fetch(mirror, path)
    if source is not None:
        source = _fork(source, folder)
    recipe = fitted(recipe, file, options.overrides, gpus, recorded)
    if folder.info is not None and _is_over(recipe, path, mirror, folder.info.status):
        if mirror is not None and not is_complete(mirror, path):
            with Mirroring(mirror, path) as mirroring:
                mirroring.start(Checkpoints(folder.checkpoints, 0), say)
        say(
            f"{path} is finished; nothing to do. See `{compare_command(recipe)}`; to continue: a larger run.steps; to "
            "start afresh: --fresh (ARGS=--fresh with make), or another name (name=…)."
        )
        return 0
    return _train(recipe, folder, source, mirror)


def _folder(recipe: Recipe) -> Path:
    return (Path(recipe.run.directory) / recipe.name).absolute()  # workers on other machines have other current folders


def _fork(source: Path, folder: RunFolder) -> Path | None:
    """The run to start from; None: the new run was begun from it before, and goes on by itself."""
    if RunFolder(source).info is None:
        raise UserError(f"There is no run in {source} to fork. Say which one is meant with name=… or seed=….")
    if folder.info is None:
        return source
    if folder.info.forked_from.startswith(f"{source}, step "):
        return None
    raise UserError(f"{folder.path} holds another run already. Give the new one another name (--fork NAME).")


def _set_aside(path: Path, mirror: Mirror | None) -> str:
    """The existing run, and its copy in the mirror; returns where they are then, "" for nowhere."""
    places = [str(old)] if (old := set_aside(path)) else []
    if mirror is not None:
        with answering(mirror):
            copy = mirror.set_aside(now()[:19].replace("-", "").replace(":", ""))
        places += [copy] if copy else []
    return " and ".join(places)


def _is_over(recipe: Recipe, path: Path, mirror: Mirror | None, status: str) -> bool:
    """Whether a run has nothing left to do; one that never came to a checkpoint makes room for one that differs.

    Raises UserError if it would not be the same run with this recipe.
    """
    from sdpo.training.resume import refuse_other_settings

    before = load_resolved(path / "recipe.yaml")
    if recipe != before:
        if Checkpoints(path / "checkpoints", 0).last() is None and refused(before, recipe):
            say(f"Set aside as {_set_aside(path, mirror)}: a run with other settings that had not saved anything yet.")
            return False
        refuse_other_settings(recipe, before, path, status)
    return status == FINISHED and recipe.run.steps <= before.run.steps


def _train(recipe: Recipe, folder: RunFolder, source: Path | None, mirror: Mirror | None) -> int:
    algorithm = build_algorithm(recipe)
    with (
        Mirroring(mirror, folder.path) as mirroring,  # outermost: it copies the end of the run as well
        folder,  # first: a second process on the same run is refused before it starts anything
        at_end(folder.close),
        Console(recipe.name, recipe.run.steps) as console,
        private_folder(folder.path, console.message),
        build_environment(recipe) as environment,  # its sandbox begins before torch and Ray come in
    ):
        from sdpo.training.launch import train

        return asyncio.run(train(recipe, algorithm, environment, folder, console, mirroring, source))
