"""SD-Zero: the policy that has seen its attempt, and what it was worth, teaches the attempt (arXiv 2604.12002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.prompts.context import ContextBuilder, Told
from sdpo.prompts.sources import environment_feedback
from sdpo.types import Group, Hint, Sample


class SDZeroSettings(AlgorithmSettings):
    right: str | None = Field(
        "This answer is correct. Give it once more, as clearly as you can.",
        description="what the teacher is told after a response that solved the task; null: those teach nothing",
    )
    wrong: str | None = Field(
        "This answer is wrong. Find the mistake, and answer again.",
        description="after one that did not; null: the environment's feedback",
    )


class SDZero(PerGroup):
    """Phase 2: KL to the teacher that revises, on every response that was graded, right or wrong.

    The teacher's prompt is the conversation after the response: the response as an earlier turn, and as a reply what
    says whether it was right.  Behind it the teacher scores the response once more.
    """

    Settings = SDZeroSettings
    replies = True
    inert = tuple(
        (f"context.{option}", lambda recipe: True, "with sd-zero, whose teacher is shown the response itself")
        for option in ("demonstration", "demonstration_of", "feedback", "remove_thinking", "teacher_thinking")
    )

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and isinstance(recipe.algorithm, SDZeroSettings)
        self.settings = recipe.algorithm
        self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation")

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        context = recipe.context
        longest = context.max_prompt_tokens + recipe.rollout.max_response_tokens + context.max_reply_tokens
        if context.max_reprompt_tokens < longest:
            raise ValueError(
                f"sd-zero's teacher reads the prompt, the response and a reply, up to {longest} tokens: set "
                "context.max_reprompt_tokens to at least that"
            )

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        teachers = self.teachers_of(group, contexts, rng)
        return samples_of(group, self.plan, teachers=teachers)

    def told(
        self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator, turn: int
    ) -> Told | None:
        turns = group.rollouts[index].turns[: turn + 1]
        outcome = turns[-1].outcome
        if outcome is None or outcome.reward is None:
            return None
        said = self.settings.right if outcome.solved else self.settings.wrong or environment_feedback(outcome)
        if said is None:
            return None
        reply = replace(outcome, reply=({"role": "user", "content": said},))
        return Told(Hint(None, said), contexts.prompt(group.task, (*turns[:-1], replace(turns[-1], outcome=reply))))
