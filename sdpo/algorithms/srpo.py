"""SRPO: failures go to self-distillation, the rest to GRPO (arXiv 2604.02288)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample, ScoredTokens


class SRPOSettings(AlgorithmSettings):
    entropy_beta: float = Field(1.0, ge=0, description="β of the token weight exp(−β·H_teacher)")


class SRPO(PerGroup):
    """A response that is wrong and has a teacher is distilled; every other one gets its GRPO advantage.

    Distilled tokens of which the teacher is sure count more: w ∝ exp(−β·H_teacher), mean 1 over the batch.  Both
    streams divide by one number, the tokens of the batch that carry either.
    """

    Settings = SRPOSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and recipe.policy_gradient is not None
        assert isinstance(recipe.algorithm, SRPOSettings)
        self.gradient = recipe.policy_gradient
        self.plan = LossPlan(
            recipe.policy_gradient,
            recipe.distillation,
            recipe.reference,
            shared_normalizer=True,
            weight_hook=CertainTeacher(recipe.algorithm.entropy_beta),
        )

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation", "policy_gradient")

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        teachers = self.teachers_of(group, contexts, rng, lambda turn: turn.graded and not turn.solved)
        advantages = response_advantages(group, self.gradient)
        routed = [a if teacher is None else None for a, teacher in zip(advantages, teachers, strict=True)]
        return samples_of(group, self.plan, advantages=routed, teachers=teachers)


@dataclass(frozen=True)
class CertainTeacher:
    """w = exp(−β·H_teacher), divided by its mean over the distilled tokens of the batch.

    H is taken relative to the least one, which cancels: however large β is, not all weights come out as 0.
    """

    beta: float

    def __call__(self, scored: Sequence[ScoredTokens]) -> list[np.ndarray | None]:
        counted = [s.teacher_entropy[s.weight != 0] for s in scored if s.teacher_entropy is not None]
        entropies = np.concatenate(counted) if counted else np.empty(0)
        least = entropies.min(initial=np.inf) if len(entropies) else 0.0
        mean = np.exp(-self.beta * (entropies - least)).mean() if len(entropies) else 1.0
        weights = [
            None if s.teacher_entropy is None else np.exp(-self.beta * np.maximum(s.teacher_entropy - least, 0.0))
            for s in scored
        ]
        return [None if w is None else w / mean for w in weights]
