"""SFT: maximum likelihood of the dataset's demonstrations, what SDFT is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdpo.algorithms.base import LossPlan, sample_of
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class SFT:
    """Every token of a demonstration has advantage 1, so the policy gradient −A·log π is the negative log-likelihood.

    The responses are the demonstrations themselves (`rollout.source`); nothing is sampled or judged in training.
    """

    needs_rewards = False

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None
        self.plan = LossPlan(policy_gradient=recipe.policy_gradient, reference=recipe.reference)

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [[self._sample(group, i) for i in range(len(group.rollouts))] for group in groups]

    def _sample(self, group: Group, index: int) -> Sample:
        ones = np.ones(len(group.rollouts[index].response_ids), np.float32)
        return Sample(**sample_of(group, index, self.plan), advantages=ones)
