"""SFT: maximum likelihood of the dataset's demonstrations, what SDFT is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class SFT(PerGroup):
    """Every token of a demonstration has advantage 1, so the policy gradient −A·log π is the negative log-likelihood.

    The responses are the demonstrations themselves (`rollout.source`); nothing is sampled or graded in training.
    """

    needs_rewards = False
    samples_itself = False

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None
        self.plan = LossPlan(policy_gradient=recipe.policy_gradient, reference=recipe.reference)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("policy_gradient",)

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        ones = [np.ones(len(turn.response_ids), np.float32) for turn in group.turns]
        return samples_of(group, self.plan, advantages=ones)
