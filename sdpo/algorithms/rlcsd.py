"""RLCSD: to every advantage is added what right siblings make likelier than wrong ones do (arXiv 2606.11709)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, contrasted, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Rollout, Sample, ScoredTokens


class RLCSDSettings(AlgorithmSettings):
    wrong_siblings: int = Field(4, ge=1, description="most wrong siblings that a response is compared behind")
    largest_addition: float = Field(0.5, gt=0, description="β·λ: most that is added to an advantage or taken from it")
    contrast_scale: float = Field(0.02, gt=0, description="τ: nats of contrast at which the addition saturates")
    smallest_addition: float = Field(0.02, ge=0, description="δ: what is not larger is not added")
    changed_weight: float = Field(1.0, gt=0, description="η: weight of the mean over tokens with an addition")


class RLCSD(PerGroup):
    """A_t = A + ρ_t, never across 0, ρ = β·λ·tanh(e/τ) where that is more than δ in size, else 0.

    e = log q(y_t|c⁺) − log mean_k q(y_t|c⁻_k), c⁺ the teacher's hint, c⁻ wrong siblings in the same words.  The loss is
    the mean of the surrogate over tokens with ρ = 0 plus η times its mean over the others.
    """

    Settings = RLCSDSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None and isinstance(recipe.algorithm, RLCSDSettings)
        self.gradient, self.settings = recipe.policy_gradient, recipe.algorithm
        hook = Additions(self.settings)
        self.plan = LossPlan(recipe.policy_gradient, reference=recipe.reference, advantage_hook=hook)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "policy_gradient")

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        own, gradient = recipe.algorithm, recipe.policy_gradient
        assert isinstance(own, RLCSDSettings)
        if own.smallest_addition >= own.largest_addition:
            raise ValueError(
                f"algorithm.smallest_addition={own.smallest_addition:g} leaves no addition, which is "
                f"algorithm.largest_addition={own.largest_addition:g} at most; lower it"
            )
        if gradient is not None and gradient.aggregation != "token-mean":
            raise ValueError("rlcsd takes two means over tokens: set policy_gradient.aggregation=token-mean")

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        def pick(failures: list[Rollout]) -> list[Rollout]:
            number = min(len(failures), self.settings.wrong_siblings)
            return [failures[i] for i in rng.choice(len(failures), number, replace=False)] if number else []

        advantages = response_advantages(group, self.gradient)
        teachers = contrasted(group, self.teachers_of(group, contexts, rng), contexts, pick)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)


@dataclass(frozen=True)
class Additions:
    """The advantages above.

    The surrogate is proportional to an advantage, so what makes one mean two is a factor of the advantages: tokens / n₀
    and η·tokens / n₁, n₀ and n₁ the tokens of the batch without and with an addition.
    """

    settings: RLCSDSettings

    def at(self, step: int) -> Additions:
        return self

    def __call__(self, scored: Sequence[ScoredTokens]) -> list[np.ndarray | None]:
        additions = [self._additions(s) for s in scored]
        changed = sum(int((rho != 0).sum()) for rho in additions if rho is not None)
        tokens = sum(len(rho) for rho in additions if rho is not None)
        factors = tokens / max(tokens - changed, 1), self.settings.changed_weight * tokens / max(changed, 1)
        return [
            None if rho is None else _within_sign(s.advantages, rho) * np.where(rho == 0, *factors)
            for s, rho in zip(scored, additions, strict=True)
        ]

    def _additions(self, scored: ScoredTokens) -> np.ndarray | None:
        """ρ [R]; None for a response that is not in the policy-gradient stream."""
        if scored.advantages is None:
            return None
        if scored.log_ratio is None or scored.contrasts is None:
            return np.zeros(len(scored.advantages))
        wrong = np.logaddexp.reduce(scored.contrasts, axis=0) - math.log(len(scored.contrasts))
        rho = self.settings.largest_addition * np.tanh((scored.log_ratio - wrong) / self.settings.contrast_scale)
        return np.where((np.abs(rho) > self.settings.smallest_addition) & (scored.advantages != 0), rho, 0.0)


def _within_sign(advantages: np.ndarray | None, rho: np.ndarray) -> np.ndarray:
    assert advantages is not None
    return np.sign(advantages) * np.maximum(np.sign(advantages) * (advantages + rho), 0)
