"""GRPO: group-relative advantages and a clipped surrogate, the baseline that SDPO is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdpo.algorithms.base import LossPlan, PerGroup, sample_of
from sdpo.config.schema import Recipe
from sdpo.config.sections import PolicyGradientSettings
from sdpo.losses.advantages import group_advantages
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class GRPO(PerGroup):
    """Every token of a response gets A = r − mean(r) over the response's group (arXiv 2402.03300 §4.1).

    Division by the group's standard deviation, clip-higher, the dual clip, GSPO's and CISPO's surrogates, and dropping
    groups without spread (DAPO, arXiv 2503.14476) are settings of `policy_gradient`.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None
        self.settings = recipe.policy_gradient
        self.plan = LossPlan(policy_gradient=recipe.policy_gradient, reference=recipe.reference)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("policy_gradient",)

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = response_advantages(group, self.settings)
        return [sample_of(r, self.plan, advantages=a) for r, a in zip(group.rollouts, advantages, strict=True)]


def response_advantages(group: Group, settings: PolicyGradientSettings) -> list[np.ndarray | None]:
    """Per response its advantage, repeated for every token; None where it is dropped from the stream.

    A response that could not be graded has no reward: it is neither trained on nor part of the group's mean.
    """
    graded = group.graded
    rewards = group.rewards[graded]
    if len(rewards) == 0 or (settings.drop_uniform_groups and rewards.min() == rewards.max()):
        return [None] * len(graded)
    advantages = np.zeros(len(graded))
    advantages[graded] = group_advantages(rewards, normalize_by_std=settings.normalize_by_std)
    return [
        np.full(len(rollout.last.response_ids), advantage, np.float32) if has_reward else None
        for rollout, advantage, has_reward in zip(group.rollouts, advantages, graded, strict=True)
    ]
