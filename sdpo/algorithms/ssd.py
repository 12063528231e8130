"""SSD: maximum likelihood of the initial policy's own samples, right or wrong (arXiv 2604.01193)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import Likelihood
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.types import Group


class SSDSettings(AlgorithmSettings):
    min_lines: int = Field(2, ge=1, description="responses with fewer lines than these are left out")


class SSD(Likelihood):
    """Responses are sampled hot and truncated (`rollout.temperature`, `top_k`, `top_p`), and learned at temperature 1.

    A run is one generation batch, so that all of them are the initial policy's: `run.questions` samples in
    `learner.updates_per_batch` updates.  Nothing is graded.
    """

    Settings = SSDSettings
    needs_rewards = False

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.algorithm, SSDSettings)
        super().__init__(recipe)
        self.min_lines = recipe.algorithm.min_lines

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.run.steps != 1:
            raise ValueError(
                f"ssd learns from the initial policy's samples only, and a second batch is not that policy's: set "
                f"run.steps=1, run.questions to the number of samples (here {recipe.run.steps * recipe.run.questions}),"
                " and learner.updates_per_batch to the number of updates"
            )

    def chosen(self, group: Group, rng: np.random.Generator) -> Sequence[bool]:
        return [len(turn.text.strip().splitlines()) >= self.min_lines for turn in group.turns]
