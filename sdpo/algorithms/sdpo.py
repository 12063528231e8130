"""SDPO: the policy, told what went wrong, becomes the teacher of its own attempt (arXiv 2601.20802)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from sdpo.algorithms.base import LossPlan, sample_of, teacher_of
from sdpo.algorithms.feedback_noise import with_feedback_noise
from sdpo.algorithms.grpo import response_advantages
from sdpo.context import ContextBuilder
from sdpo.recipe import DistillationSettings, PolicyGradientSettings, Recipe
from sdpo.types import Group, Sample

_Stream = TypeVar("_Stream", PolicyGradientSettings, DistillationSettings)


class SDPO:
    """The teacher re-scores every response behind a prompt that holds a sibling's success and/or its own feedback.

    A response with nothing to tell (correct and without a successful sibling, say) carries no distillation loss and
    does not count in its normaliser.  With `algorithm.mix` = λ the advantages are λ·A_GRPO + (1−λ)·A_SDPO with one
    normaliser for both streams (mixing helps weak models, says the paper).
    """

    needs_rewards = True

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None
        self.gradient = recipe.policy_gradient  # None without a mix
        self.feedback_noise = recipe.context.feedback_noise
        mix = recipe.algorithm.mix
        if mix is None:
            self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)
        else:
            assert recipe.policy_gradient is not None
            self.plan = LossPlan(
                policy_gradient=_scaled(recipe.policy_gradient, mix),
                distillation=_scaled(recipe.distillation, 1 - mix),
                reference=recipe.reference,
                shared_normalizer=True,
            )

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        groups, swapped = with_feedback_noise(groups, self.feedback_noise, rng)
        contexts.counts["feedback_swapped"] += swapped
        return [self._group(group, contexts, rng) for group in groups]

    def _group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages: list[np.ndarray | None] = [None] * len(group.rollouts)
        if self.gradient is not None:
            advantages = response_advantages(group, self.gradient)
        return [
            Sample(
                **sample_of(group, i, self.plan),
                advantages=advantages[i],
                teacher=teacher_of(group, i, contexts, rng, self.plan),
            )
            for i in range(len(group.rollouts))
        ]


def _scaled(settings: _Stream, factor: float) -> _Stream:
    return settings.model_copy(update={"coefficient": settings.coefficient * factor})
