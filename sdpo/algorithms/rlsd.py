"""RLSD: the reward says in which direction a response changes, the teacher how much each token (arXiv 2604.03128)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.config.streams import Ramp
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample, ScoredTokens


class RLSDSettings(AlgorithmSettings):
    strength: float = Field(0.5, gt=0, le=1, description="λ: how much of an advantage the teacher shapes")
    strength_steps: int | None = Field(
        50, ge=1, description="generation batches over which λ falls to 0, in equal steps; null: it stays"
    )
    ratio_clip: float = Field(0.2, gt=0, lt=1, description="ε: the teacher's factor is between 1 − ε and 1 + ε")
    failures_only: bool = Field(False, description="shape negative advantages only")


@dataclass(frozen=True)
class TeacherShaped:
    """New advantages from those of the responses and from the teacher's opinion of their tokens (`RLSD`)."""

    strength: float
    ratio_clip: float
    failures_only: bool
    falls: Ramp | None = None

    def at(self, step: int) -> TeacherShaped | None:
        strength = self.strength * (1.0 if self.falls is None else self.falls.at(step))
        return replace(self, strength=strength, falls=None) if strength > 0 else None

    def __call__(self, scored: Sequence[ScoredTokens]) -> list[np.ndarray | None]:
        return [
            None if s.advantages is None or (gap := self.opinion(s)) is None else self._shaped(s.advantages, gap)
            for s in scored
        ]

    def opinion(self, scored: ScoredTokens) -> np.ndarray | None:
        """How much likelier each token is to the teacher, in nats; None: it was not asked."""
        return scored.log_ratio

    def _shaped(self, advantages: np.ndarray, opinion: np.ndarray) -> np.ndarray:
        bounds = np.log1p([-self.ratio_clip, self.ratio_clip])
        factor = np.exp(np.clip(np.sign(advantages) * opinion, *bounds))
        shaped = advantages * (1 - self.strength + self.strength * factor)
        return np.where(advantages < 0, shaped, advantages) if self.failures_only else shaped


class RLSD(PerGroup):
    """A_t = A·((1 − λ) + λ·clip(exp(sign(A)·(log q − log π)), 1 − ε, 1 + ε)), A the response's GRPO advantage.

    q is the teacher behind its hint, at the sampled token.  It gives no loss of its own, and cannot turn an advantage
    round.  A response without a hint keeps A.
    """

    Settings = RLSDSettings
    Hook: ClassVar[type[TeacherShaped]] = TeacherShaped

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None and isinstance(recipe.algorithm, RLSDSettings)
        self.gradient, own = recipe.policy_gradient, recipe.algorithm
        falls = None if own.strength_steps is None else Ramp(start=1.0, end=0.0, steps=own.strength_steps)
        hook = self.Hook(own.strength, own.ratio_clip, own.failures_only, falls)
        self.plan = LossPlan(recipe.policy_gradient, reference=recipe.reference, advantage_hook=hook)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "policy_gradient")

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = response_advantages(group, self.gradient)
        teachers = self.teachers_of(group, contexts, rng)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)
