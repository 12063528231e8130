"""SRPO: failures go to self-distillation, the rest to GRPO (arXiv 2604.02288)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sandbox import Verdict
from sdpo.algorithms.base import LossPlan, sample_of, teacher_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.context import ContextBuilder
from sdpo.recipe import Recipe
from sdpo.types import Group, Sample, ScoredTokens


class SRPO:
    """A response that is wrong and has a teacher is distilled; every other one gets its GRPO advantage.

    Distilled tokens of which the teacher is sure count more: w ∝ exp(−β·H_teacher), mean 1 over the batch.  Both
    streams divide by one number, the tokens of the batch that carry either.
    """

    needs_rewards = True

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and recipe.policy_gradient is not None
        assert recipe.algorithm.entropy_beta is not None
        self.policy_gradient = recipe.policy_gradient
        self.plan = LossPlan(
            recipe.policy_gradient,
            recipe.distillation,
            recipe.reference,
            shared_normalizer=True,
            weight_hook=CertainTeacher(recipe.algorithm.entropy_beta),
        )

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [self._group(group, contexts, rng) for group in groups]

    def _group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        samples = []
        for i, advantages in enumerate(response_advantages(group, self.policy_gradient)):
            teacher = None
            if not group.judgements[i].passed and group.judgements[i].verdict != Verdict.SANDBOX_ERROR:
                teacher = teacher_of(group, i, contexts, rng, self.plan)
            routed = advantages if teacher is None else None
            samples.append(Sample(**sample_of(group, i, self.plan), advantages=routed, teacher=teacher))
        return samples


@dataclass(frozen=True)
class CertainTeacher:
    """w = exp(−β·H_teacher), divided by its mean over the distilled tokens of the batch."""

    beta: float

    def __call__(self, scored: Sequence[ScoredTokens]) -> list[np.ndarray | None]:
        weights = [None if s.teacher_entropy is None else np.exp(-self.beta * s.teacher_entropy) for s in scored]
        taught = [w[s.weight != 0] for w, s in zip(weights, scored, strict=True) if w is not None]
        mean = np.concatenate(taught).mean() if sum(map(len, taught)) else 1.0
        return [None if w is None else w / mean for w in weights]
