"""GRPO: group-relative advantages and a clipped surrogate, the baseline that SDPO is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.config.schema import Recipe
from sdpo.config.streams import PolicyGradientSettings
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
        return samples_of(group, self.plan, advantages=response_advantages(group, self.settings))


def response_advantages(group: Group, settings: PolicyGradientSettings) -> list[np.ndarray | None]:
    """Per turn its advantage, repeated for every token; None where it is dropped from the stream.

    returns=rollout: every turn gets that of its rollout's last reward.  returns=turn: of the discounted sum of its own
    reward and those after it (arXiv 2507.11948), relative to the turns of the same number (this project's choice: they
    are what could have been done at that point).  A rollout that could not be graded in the end has no return: it is
    neither trained on nor part of the group's mean.
    """
    if settings.returns == "rollout":
        relative = _relative(group.rewards, settings)
        found = [value for value, rollout in zip(relative, group.rollouts, strict=True) for _ in rollout.turns]
    else:
        returns = _returns(group, settings.discount)
        by_number = np.stack([_relative(column, settings) for column in returns.T], axis=1)
        found = [value for row, r in zip(by_number, group.rollouts, strict=True) for value in row[: len(r.turns)]]
    return [
        None if np.isnan(value) else np.full(len(turn.response_ids), value, np.float32)
        for turn, value in zip(group.turns, found, strict=True)
    ]


def _returns(group: Group, discount: float) -> np.ndarray:
    """[n, T]: of each rollout and turn; NaN where there is no such turn or no return."""
    returns = np.full((len(group.rollouts), max(len(rollout.turns) for rollout in group.rollouts)), np.nan)
    for row, rollout in zip(returns, group.rollouts, strict=True):
        following = 0.0
        for number in reversed(range(len(rollout.turns) if rollout.graded else 0)):
            outcome = rollout.turns[number].outcome
            own = 0.0 if outcome is None or outcome.reward is None else outcome.reward
            row[number] = following = own + discount * following
    return returns


def _relative(returns: np.ndarray, settings: PolicyGradientSettings) -> np.ndarray:
    """[n] advantages of returns [n]; NaN where there is none of either."""
    known = ~np.isnan(returns)
    values, advantages = returns[known], np.full(len(returns), np.nan)
    if len(values) and not (settings.drop_uniform_groups and values.min() == values.max()):
        advantages[known] = group_advantages(values, normalize_by_std=settings.normalize_by_std)
    return advantages
