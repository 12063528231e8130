"""SDPO: the policy, told what went wrong, becomes the teacher of its own attempt (arXiv 2601.20802)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.config.streams import StreamSettings
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Sample

Stream = TypeVar("Stream", bound=StreamSettings)


class SDPOSettings(AlgorithmSettings):
    mix: float | None = Field(
        None, gt=0, lt=1, description="λ of λ·A_GRPO + (1−λ)·A_SDPO, with one normaliser for both; null: SDPO alone"
    )


class SDPO(PerGroup):
    """The teacher re-scores every response behind a prompt that holds a sibling's success and/or its own feedback.

    A response with nothing to tell (correct and without a successful sibling, say) carries no distillation loss and
    does not count in its normaliser.  With `algorithm.mix` = λ the advantages are λ·A_GRPO + (1−λ)·A_SDPO with one
    normaliser for both streams (mixing helps weak models, says the paper).
    """

    Settings = SDPOSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and isinstance(recipe.algorithm, SDPOSettings)
        self.gradient = recipe.policy_gradient  # None without a mix
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

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        mixed = ("policy_gradient",) if settings.get("mix") is not None else ()
        return ("teacher", "distillation", *mixed)

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = None if self.gradient is None else response_advantages(group, self.gradient)
        teachers = self.teachers_of(group, contexts, rng)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)


def _scaled(settings: Stream, factor: float) -> Stream:
    return settings.model_copy(update={"coefficient": settings.coefficient * factor})
