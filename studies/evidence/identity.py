"""When two runs are one: their settings, without what does not decide about the numbers."""

from __future__ import annotations

from sdpo.config.files import validate
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from studies.evidence.record import Record


def identity(recipe: Recipe) -> Recipe:
    """The recipe without name, place, checkpoints to keep, tracking and threads."""
    run = recipe.run.model_copy(update={"directory": "", "keep_checkpoints": 0})
    rollout, learner = (part.model_copy(update={"cpu_threads": 1}) for part in (recipe.rollout, recipe.learner))
    placed = {"rollout": rollout, "learner": learner, "tracking": type(recipe.tracking)()}
    return recipe.model_copy(update={"name": "", "run": run, **placed})


def identity_of(record: Record) -> Recipe | None:
    """The same of a record; options that came later have their defaults.  None: it has options that are gone."""
    try:
        return identity(validate(record.settings, record.run, resolved=True))
    except UserError:
        return None
