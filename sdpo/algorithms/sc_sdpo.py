"""SC-SDPO: SDPO that learns most from questions which the policy solves about half of the time (arXiv 2605.27765)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.sdpo import SDPO, SDPOSettings
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample


class SCSDPOSettings(SDPOSettings):
    smoothing: float = Field(
        0.0, ge=0, description="successes and failures that are added to those of a group; above 0 none weighs 0"
    )


def _always_has_a_success(recipe: Any) -> bool:
    """Whether a failed response that is distilled has a sibling that succeeded, in place of its feedback."""
    told = recipe.context.demonstration, recipe.context.feedback
    return recipe.algorithm.smoothing == 0 and told == ("random", "fallback") and recipe.environment.turns == 1


class SCSDPO(SDPO):
    """The distillation of a question's responses weighs sqrt(p̂·(1 − p̂)), p̂ the pass rate of its group.

    The weights have mean 1 over the questions of a generation batch that have one.  A question that was always or
    never solved has none, and its responses are not distilled.
    """

    Settings = SCSDPOSettings
    inert = (
        (
            "context.feedback",
            _always_has_a_success,
            "with algorithm.smoothing=0: all has a demonstration",
        ),
    )

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        assert isinstance(recipe.algorithm, SCSDPOSettings)
        self.smoothing = recipe.algorithm.smoothing

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        weights = question_weights(groups, self.smoothing)
        samples = super().assign(groups, contexts, rng)
        return [[_weighed(s, w) for s in own] for own, w in zip(samples, weights, strict=True)]


def question_weights(groups: Sequence[Group], smoothing: float) -> np.ndarray:
    """float64 [groups]: sqrt(p̂·(1 − p̂)), divided by the mean of those above 0; 0 for a group without rewards."""
    graded = np.array([group.graded.sum() for group in groups])
    solved = np.array([sum(rollout.solved for rollout in group.rollouts) for group in groups])
    rates = (solved + smoothing) / np.maximum(graded + 2 * smoothing, 1)
    weights = np.sqrt(rates * (1 - rates)) * (graded > 0)
    return weights / weights[weights > 0].mean() if weights.any() else weights


def _weighed(sample: Sample, weight: float) -> Sample:
    if sample.teacher is None or weight == 0:
        return replace(sample, teacher=None)
    return replace(sample, teacher=replace(sample.teacher, weight=sample.teacher.weight * np.float32(weight)))
