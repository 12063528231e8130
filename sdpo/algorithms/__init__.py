"""One algorithm per file: how the responses of a batch become `Sample`s, and which loss streams they feed."""

from __future__ import annotations

from sdpo.algorithms.base import Algorithm, LossPlan
from sdpo.config.schema import Recipe, algorithm_class
from sdpo.errors import UserError

__all__ = ["Algorithm", "LossPlan", "build_algorithm"]


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm that `algorithm.name` names.  Raises UserError where it needs what the recipe does not give."""
    algorithm: Algorithm = algorithm_class(recipe.algorithm.name)(recipe)
    if algorithm.needs_rewards and recipe.rollout.first_response_tokens is not None:
        raise UserError(
            f"{recipe.algorithm.label} needs rewards, and a response that is cut short gets none that mean anything: "
            "remove rollout.first_response_tokens, or take distillation.prefix_tokens, which cuts the loss alone."
        )
    return algorithm
