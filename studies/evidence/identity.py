"""When two runs are one: their settings, without what does not decide about the numbers."""

from __future__ import annotations

from typing import Any

from sdpo.config.files import validate
from sdpo.config.identity import configuration
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from studies.evidence.record import Record

Identity = dict[str, Any]


def identity(recipe: Recipe) -> Identity:
    """What decides about the numbers, and the seed."""
    return {**configuration(recipe.model_dump(mode="json")), "seed": recipe.seed}


def identity_of(record: Record) -> Identity | None:
    """The same of a record; options that came later have their defaults.  None: it has options that are gone."""
    try:
        return identity(validate(record.settings, record.run, resolved=True))
    except UserError:
        return None
