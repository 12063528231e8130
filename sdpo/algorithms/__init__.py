"""One algorithm per file: how the responses of a batch become `Sample`s, and which loss streams they feed."""

from __future__ import annotations

import importlib

from sdpo.algorithms.base import Algorithm, LossPlan
from sdpo.algorithms.grpo import GRPO
from sdpo.algorithms.opsd import OPSD
from sdpo.algorithms.sdft import SDFT
from sdpo.algorithms.sdpo import SDPO
from sdpo.algorithms.sft import SFT
from sdpo.algorithms.srpo import SRPO
from sdpo.config.schema import Recipe
from sdpo.errors import UserError

ALGORITHMS: dict[str, type[Algorithm]] = {
    "grpo": GRPO, "sdpo": SDPO, "srpo": SRPO, "opsd": OPSD, "sdft": SDFT, "sft": SFT,
}  # fmt: skip


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm that `algorithm.name` names; `module:Class` is imported.  Raises UserError where there is none."""
    name = recipe.algorithm.name
    if name in ALGORITHMS:
        return ALGORITHMS[name](recipe)
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(recipe)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"algorithm.name={name} cannot be imported ({error}). Give module:Class of a module that Python finds "
            "(PYTHONPATH)."
        ) from error


__all__ = ["ALGORITHMS", "Algorithm", "LossPlan", "build_algorithm"]
