"""SDAR: GRPO, and beside it distillation through a gate that opens where the teacher likes a token (2605.15155)."""

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


class SDARSettings(AlgorithmSettings):
    gate_beta: float = Field(5.0, gt=0, description="β of the gate σ(β·(log q − log π)), which weighs a token")


class SDAR(PerGroup):
    """PG(A) + λ·σ(β·(log q − log π))·D(π, q), each with its own normaliser; λ is `distillation.coefficient`.

    The gate is a constant for the gradient.  A token of which the teacher thinks less than the policy is hardly pushed.
    """

    Settings = SDARSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and recipe.policy_gradient is not None
        assert isinstance(recipe.algorithm, SDARSettings)
        self.gradient = recipe.policy_gradient
        streams = recipe.policy_gradient, recipe.distillation, recipe.reference
        self.plan = LossPlan(*streams, weight_hook=Gate(recipe.algorithm.gate_beta))

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation", "policy_gradient")

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = response_advantages(group, self.gradient)
        teachers = self.teachers_of(group, contexts, rng)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)


@dataclass(frozen=True)
class Gate:
    """σ(β·(log q − log π)) of every distilled token."""

    beta: float

    def __call__(self, scored: Sequence[ScoredTokens]) -> list[np.ndarray | None]:
        # By the hyperbolic tangent, which overflows nowhere.
        return [None if s.log_ratio is None else (1 + np.tanh(self.beta * s.log_ratio / 2)) / 2 for s in scored]
