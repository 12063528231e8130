"""How a run begins: anew, from its last whole checkpoint, or from that of another run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sdpo.config.files import load_resolved
from sdpo.config.resume import STEPS, changes, refused
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset
from sdpo.errors import UserError
from sdpo.tracking import Console, RunFolder, RunInfo, provenance
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.lock import is_locked
from sdpo.training import inputs
from sdpo.training.checkpoints import Checkpoints, step_of

_REMEDY = (
    "Resume it with its own settings, start another run from its checkpoint (--fork NAME), give this run another name "
    "(name=…), or start afresh (--fresh); with make: ARGS='--fork NAME', ARGS=--fresh."
)


def begin(recipe: Recipe, dataset: Dataset, folder: RunFolder, console: Console, source: Path | None = None) -> None:
    """Create the run of `folder`.  `source`: the run from whose last whole checkpoint it goes on.  The lock is held."""
    info = RunInfo.collect(
        recipe=recipe.recipe, algorithm=recipe.algorithm.label, seed=recipe.seed, profile=recipe.profile
    )
    if source is not None:
        if is_locked(source):
            raise UserError(f"A process is training in {source}: stop it before you start another run from it.")
        checkpoint = _verified(source / "checkpoints", console)
        if checkpoint is None:
            raise UserError(f"{source} has no checkpoint to start from.")
        _check_steps_left(recipe, step_of(checkpoint))
        with console.phase(f"copying {checkpoint.name} of {source.name}", announce=True):
            Checkpoints(folder.checkpoints, 0).copy(checkpoint)
        info.forked_from = f"{source}, step {step_of(checkpoint)}"
    with console.phase("reading the model's files", announce=True):
        found = inputs.collect(recipe, dataset)
    _note(folder, found)
    folder.create(info, recipe.model_dump(mode="json"))
    if source is not None:
        console.message(f"{folder.path} begins where {info.forked_from} ended.")


def resume(recipe: Recipe, dataset: Dataset, folder: RunFolder, console: Console) -> None:
    """Go back to the last whole checkpoint of `folder`'s run, with what may be different noted.  The lock is held.

    Raises:
        UserError: something is different that must not be, or no checkpoint is whole.
    """
    before = load_resolved(folder.path / "recipe.yaml")
    with console.phase("reading the model's files", announce=True):
        found = inputs.collect(recipe, dataset)
    code = _compare_inputs(recipe, before, dataset, found, folder)
    checkpoint = _verified(folder.checkpoints, console)
    step = 0 if checkpoint is None else step_of(checkpoint)
    _check_steps_left(recipe, step)
    if checkpoint is None:
        folder.resume(-1)  # the evaluation of step 0 is repeated too
    else:
        folder.resume(step, Checkpoints.state(checkpoint).rows)
    console.message(
        f"Resuming {folder.path} " + (f"after step {step}." if step else "from the beginning (no checkpoint yet).")
    )
    _note(folder, found)
    _note_changes(recipe, before, folder, console, step, code)


def _verified(checkpoints: Path, console: Console) -> Path | None:
    said: list[str] = []
    with console.phase("verifying the last checkpoint", announce=True):
        found = Checkpoints(checkpoints, 0).usable(said.append)
    for text in said:
        console.message(text)
    return found


def refuse_other_settings(recipe: Recipe, before: Recipe, path: Path, status: str) -> None:
    """Raises UserError if the run of `path` would not be the same with `recipe`."""
    if said := refused(before, recipe):
        raise UserError(f"{path} holds a run ({status}) with other settings ({'; '.join(said)}). {_REMEDY}")


def _compare_inputs(
    recipe: Recipe, before: Recipe, dataset: Dataset, found: dict[str, str], folder: RunFolder
) -> dict[str, tuple[str, str]]:
    """Files of code that have changed: old and new checksum.  Raises UserError where model or tasks have."""
    path = folder.path / inputs.NAME
    changed = inputs.differences(inputs.read(path), found) if path.is_file() else {}
    code = {name: pair for name, pair in changed.items() if name.startswith(inputs.CODE)}
    said = [f"{name}: {old} → {new}" for name, (old, new) in changed.items() if name not in code]
    old, new = before.run.steps, recipe.run.steps
    for step in range(min(old, new) if old != new else 0):
        then, now = dataset.training(step / old), dataset.training(step / new)
        if then is not now and [task.id for task in then] != [task.id for task in now]:
            said.append(f"{STEPS}: {old} → {new}, on which the tasks of step {step + 1} depend")
            break
    if said:
        raise UserError(f"{folder.path} was started with other files or tasks ({'; '.join(said)}). {_REMEDY}")
    return code


def _check_steps_left(recipe: Recipe, step: int) -> None:
    if step > recipe.run.steps:
        raise UserError(f"{STEPS}={recipe.run.steps}, but step {step} is done already. Give at least as many.")


def _note(folder: RunFolder, found: dict[str, str]) -> None:
    atomic_write(folder.path / inputs.NAME, json.dumps(found, indent=1).encode() + b"\n")


def _note_changes(
    recipe: Recipe,
    before: Recipe,
    folder: RunFolder,
    console: Console,
    step: int,
    code: Mapping[str, tuple[str, str]],
) -> None:
    """In run.json and recipe.yaml: what goes on in another way from here."""
    info = folder.info
    assert info is not None
    commit = provenance.commit()
    if commit != info.commit:
        code = {"commit": (info.commit, commit), **code}
    if code:
        console.message(
            "warning: the code is not the one that the run was started with "
            f"({'; '.join(f'{name} {old} → {new}' for name, (old, new) in code.items())}). From here "
            "on the run computes with the new code."
        )
    options = {change.option: (change.old, change.new) for change in changes(before, recipe)}
    if options:
        said = (f"{name}: {old} → {new}" for name, (old, new) in options.items())
        console.message(f"From here on: {'; '.join(said)}.")
    if options or code:
        folder.note_changes(recipe.model_dump(mode="json"), step, {**options, **code}, commit)
