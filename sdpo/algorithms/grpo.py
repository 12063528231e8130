"""GRPO: group-relative advantages and a clipped surrogate, the baseline that SDPO is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sandbox import Verdict
from sdpo.algorithms.base import LossPlan, sample_of
from sdpo.config.schema import PolicyGradientSettings, Recipe
from sdpo.losses.advantages import group_advantages
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class GRPO:
    """Every token of a response gets A = r − mean(r) over the response's group (arXiv 2402.03300 §4.1).

    Division by the group's standard deviation, clip-higher, the dual clip, GSPO's and CISPO's surrogates, and dropping
    groups without spread (DAPO, arXiv 2503.14476) are settings of `policy_gradient`.
    """

    needs_rewards = True

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None
        self.settings = recipe.policy_gradient
        self.plan = LossPlan(policy_gradient=recipe.policy_gradient, reference=recipe.reference)

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> list[Sample]:
        return [
            Sample(**sample_of(group, i, self.plan), advantages=advantages)
            for i, advantages in enumerate(response_advantages(group, self.settings))
        ]


def response_advantages(group: Group, settings: PolicyGradientSettings) -> list[np.ndarray | None]:
    """Per response its advantage, repeated for every token; None where it is dropped from the stream.

    A response that the sandbox failed to judge has no reward: it is neither trained on nor part of the group's mean.
    """
    judged = np.array([j.verdict != Verdict.SANDBOX_ERROR for j in group.judgements])
    rewards = group.rewards[judged]
    if len(rewards) == 0 or (settings.drop_uniform_groups and rewards.min() == rewards.max()):
        return [None] * len(judged)
    advantages = np.zeros(len(judged))
    advantages[judged] = group_advantages(rewards, normalize_by_std=settings.normalize_by_std)
    return [
        np.full(len(rollout.response_ids), advantage, np.float32) if has_reward else None
        for rollout, advantage, has_reward in zip(group.rollouts, advantages, judged, strict=True)
    ]
