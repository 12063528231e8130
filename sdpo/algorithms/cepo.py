"""CEPO: advantages shaped by what a right answer makes likelier than a wrong one does (arXiv 2605.19436)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import contrasted, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.algorithms.rlsd import RLSD, RLSDSettings, TeacherShaped
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Rollout, Sample, ScoredTokens


class CEPOSettings(RLSDSettings):
    strength_steps: int | None = Field(
        25, ge=1, description="generation batches over which λ falls to 0, in equal steps; null: it stays"
    )


@dataclass(frozen=True)
class Contrast(TeacherShaped):
    """log q(y|c⁺) − log q(y|c⁻), in which the policy's own probability cancels."""

    def opinion(self, scored: ScoredTokens) -> np.ndarray | None:
        if scored.log_ratio is None or scored.contrasts is None:
            return None
        return scored.log_ratio - scored.contrasts[0]


class CEPO(RLSD):
    """RLSD with the teacher behind a failure, q(·|c⁻), in the policy's place.

    c⁺ is the teacher's hint, c⁻ the sibling with the lowest reward among those that failed, in the same words.  A
    response without such a sibling keeps its advantage.
    """

    Settings = CEPOSettings
    Hook = Contrast

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        advantages = response_advantages(group, self.gradient)
        teachers = contrasted(group, self.teachers_of(group, contexts, rng), contexts, worst)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)


def worst(failures: list[Rollout]) -> list[Rollout]:
    """The one with the lowest reward, the first of several; none of none."""
    rewards = [r.outcome.reward for r in failures if r.outcome is not None and r.outcome.reward is not None]
    return [failures[int(np.argmin(rewards))]] if rewards else []
