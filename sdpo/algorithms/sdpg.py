"""SDPG: GRPO, and beside it a little distillation of the responses that were better than their group (2606.04036)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class SDPGSettings(AlgorithmSettings):
    positive_only: bool = Field(True, description="distil the responses with a positive advantage only")


class SDPG(PerGroup):
    """PG(A) + β·1[A > 0]·D(π, q) + α·KL(π, π_ref), one normaliser for the first two.

    β and its schedule are `distillation.coefficient` with `ramp` and `second_ramp`, α is `reference.coefficient`.
    Without the condition on A it is SDPO's mix with λ = 1/(1 + β), up to a factor of the whole loss.
    """

    Settings = SDPGSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and recipe.policy_gradient is not None
        assert isinstance(recipe.algorithm, SDPGSettings)
        self.gradient, self.positive_only = recipe.policy_gradient, recipe.algorithm.positive_only
        self.plan = LossPlan(recipe.policy_gradient, recipe.distillation, recipe.reference, shared_normalizer=True)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation", "policy_gradient")

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = response_advantages(group, self.gradient)
        teachers = self.teachers_of(group, contexts, rng)
        if self.positive_only:
            better = [a is not None and a[0] > 0 for a in advantages]
            teachers = [t if wanted else None for t, wanted in zip(teachers, better, strict=True)]
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)
