"""Wrong feedback, on purpose: how much of it does a teacher bear?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from sdpo.algorithms import sdpo
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder, Told
from sdpo.types import Group, Rollout, Sample


class NoiseSettings(sdpo.SDPOSettings):
    noise: float = Field(
        gt=0, le=1, description="share of failed responses that get the feedback on another question's failure"
    )


class SDPO(sdpo.SDPO):
    """SDPO whose teachers are told the wrong thing: `algorithm: {name: "studies.feedback_noise:SDPO", noise: 0.3}`."""

    Settings = NoiseSettings
    inert = (("algorithm.noise", lambda recipe: recipe.context.feedback == "never", "with context.feedback=never"),)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        assert isinstance(recipe.algorithm, NoiseSettings)
        self.noise = recipe.algorithm.noise

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        noisy, swapped = with_feedback_noise(groups, self.noise, rng)
        contexts.counts["feedback_swapped"] += swapped
        return super().assign(noisy, contexts, rng)

    def told(
        self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator, turn: int
    ) -> Told | None:
        """For probes, whose groups nobody has swapped anything in."""
        noisy, _ = with_feedback_noise([group, *contexts.batch], self.noise, rng)
        return super().told(noisy[0], index, contexts, rng, turn)


def with_feedback_noise(
    groups: Sequence[Group], probability: float, rng: np.random.Generator
) -> tuple[list[Group], int]:
    """Failed responses get, with `probability`, the feedback on a failed response to another task.

    Another feedback of the batch is as real as the right one, so that only its being wrong makes the difference.  Who
    solved a task stays as it was, and so do rewards and demonstrations.  A response keeps its own feedback where no
    other task has a failure.  Returns the groups and the number of feedbacks that changed hands.
    """
    failures = [(group.task.id, r.outcome.feedback) for group in groups for r in group.rollouts if _failed(r)]
    swapped, result = 0, []
    for group in groups:
        foreign = [feedback for task, feedback in failures if task != group.task.id]
        rollouts = list(group.rollouts)
        for i, own in enumerate(rollouts):
            if foreign and _failed(own) and rng.random() < probability:
                rollouts[i] = _told(own, foreign[rng.integers(len(foreign))])
                swapped += 1
        result.append(replace(group, rollouts=tuple(rollouts)))
    return result, swapped


def _told(rollout: Rollout, feedback: str | None) -> Rollout:
    outcome = replace(rollout.outcome, feedback=feedback)
    return Rollout((*rollout.turns[:-1], replace(rollout.last, outcome=outcome)))


def _failed(rollout: Rollout) -> bool:
    """Failed by its own fault: what could not be graded has no feedback to give."""
    return rollout.graded and not rollout.solved
