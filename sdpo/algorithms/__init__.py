"""One algorithm per file: how the responses of a batch become `Sample`s, and which loss streams they feed."""

from __future__ import annotations

from sdpo.algorithms.base import Algorithm, LossPlan
from sdpo.config.schema import Recipe, algorithm_class

__all__ = ["Algorithm", "LossPlan", "build_algorithm"]


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm that `algorithm.name` names."""
    algorithm: Algorithm = algorithm_class(recipe.algorithm.name)(recipe)
    return algorithm
