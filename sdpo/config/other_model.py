"""The model that a recipe was written for, where another one is named in its place.

What was said before the other model was named (by a file that the recipe extends, by its profile's section, by the
recipe where the command line names the model) was said of the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo.config.files import apply, layers
from sdpo.config.identity import flatten
from sdpo.config.sections import ContextSettings


@dataclass(frozen=True)
class OtherModel:
    """`since`: the options that were set together with the model that took its place, or later."""

    path: str
    template: str
    since: frozenset[str]


def other_model(file: Path, profile: str, overrides: Sequence[str], gpus: int | None = None) -> OtherModel | None:
    """The last model that was replaced; None where all was said of one model.

    Raises UserError for files that cannot be read, and for overrides that are none.
    """
    given: dict[str, Any] = {}
    apply(given, list(overrides))
    model: Any = None
    other: tuple[str, str] | None = None
    said: dict[str, Any] = {}
    since: set[str] = set()
    for layer in (*layers(file, profile, gpus), given):
        options = flatten(layer)
        named = options.get("model.path", model)
        if model is not None and named != model:
            other = model, str(said.get("context.template", ContextSettings().template))
            since = set()
        model = named
        said |= options
        since |= options.keys()
    since |= {text.partition("=")[0] for text in overrides}  # an option that was set to null, too
    return None if other is None else OtherModel(*other, frozenset(since))
