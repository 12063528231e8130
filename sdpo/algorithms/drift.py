"""DRIFT: what a question's history says decides how its responses are learned from (arXiv 2606.30345)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import Algorithm, LossPlan, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.prompts.context import ContextBuilder, Told
from sdpo.types import Group, Outcome, Rollout, Sample, Turn

PRIOR = 8  # rollouts after which a question's own rate counts as much as the prior of one half
WIDTH = 0.08  # of a gate, in pass rate


class DRIFTSettings(AlgorithmSettings):
    decay: float = Field(0.85, gt=0, le=1, description="of a question's counts, per generation batch")
    hard: float = Field(0.3, gt=0, lt=1, description="pass rate at which a question is half hard")
    easy: float = Field(0.7, gt=0, lt=1, description="pass rate at which a question is half easy")
    successes: int = Field(
        4, ge=0, description="of a question that are kept, and shown where no sibling succeeded; 0: none"
    )
    warmup_batches: int = Field(10, ge=0, description="first generation batches, in which all is distilled as in SDPO")
    reset_every: int | None = Field(
        None, ge=1, description="generation batches after which all histories are forgotten; null: never"
    )


@dataclass
class History:
    """Of one question: how often it was solved and not, older batches counting less, and its last successes."""

    right: float = 0.0
    wrong: float = 0.0
    batch: int = 0  # of the last rollouts
    successes: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """c·(n⁺ + 1)/(n + 2) + (1 − c)/2, c = n/(n + 8)."""
        count = self.right + self.wrong
        confidence = count / (count + PRIOR)
        return confidence * (self.right + 1) / (count + 2) + (1 - confidence) / 2

    def count(self, group: Group, batch: int, decay: float) -> None:
        faded, right = decay ** (batch - self.batch), sum(rollout.solved for rollout in group.rollouts)
        self.right = faded * self.right + right
        self.wrong = faded * self.wrong + int(group.graded.sum()) - right
        self.batch = batch

    def keep(self, group: Group, most: int) -> None:
        new = [rollout.last.text for rollout in group.rollouts if rollout.solved]
        distinct = list(dict.fromkeys([*self.successes, *new]))
        self.successes = distinct[max(0, len(distinct) - most) :]


class DRIFT(Algorithm):
    """A failure with a teacher is distilled, weighed by h + .35e; a success is reinforced, by .3h + m + .05e.

    h, m and e say how hard, middling and easy the question has been.  A failure without a teacher keeps its advantage.
    Both streams divide by one number, the tokens of the batch that carry either.
    """

    Settings = DRIFTSettings

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None and recipe.policy_gradient is not None
        assert isinstance(recipe.algorithm, DRIFTSettings)
        self.settings, self.gradient = recipe.algorithm, recipe.policy_gradient
        self.plan = LossPlan(recipe.policy_gradient, recipe.distillation, recipe.reference, shared_normalizer=True)
        self.load_state_dict({})

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation", "policy_gradient")

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        own = recipe.algorithm
        assert isinstance(own, DRIFTSettings)
        if own.hard >= own.easy:
            raise ValueError(f"algorithm.hard={own.hard:g} must be below algorithm.easy={own.easy:g}")
        if own.successes and recipe.context.demonstration != "random":
            raise ValueError(
                "drift shows past successes where a sibling's would be: set context.demonstration=random, or "
                "algorithm.successes=0"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "questions": {name: asdict(each) for name, each in self.questions.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches: int = state.get("batches", 0)
        self.questions = {name: History(**each) for name, each in state.get("questions", {}).items()}

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        if self.settings.reset_every is not None and self.batches % self.settings.reset_every == 0:
            self.questions.clear()
        self.batches += 1
        return [self._assign(group, contexts, rng) for group in groups]

    def told(
        self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator, turn: int
    ) -> Told | None:
        """A past success stands in for a sibling's."""
        history = self.questions.get(group.task.id)
        if history is not None and not any(r.solved for i, r in enumerate(group.rollouts) if i != index):
            group = replace(group, rollouts=(*group.rollouts, *map(_success, history.successes)))
        return super().told(group, index, contexts, rng, turn)

    def _assign(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        teachers = self.teachers_of(group, contexts, rng)
        history = self.questions.setdefault(group.task.id, History(batch=self.batches))
        history.count(group, self.batches, self.settings.decay)
        history.keep(group, self.settings.successes)
        if self.batches <= self.settings.warmup_batches:
            return samples_of(group, self.plan, teachers=teachers)
        hard, middling, easy = gates(history.rate, self.settings.hard, self.settings.easy)
        advantages, routed = response_advantages(group, self.gradient), list(teachers)
        for i, (turn, teacher) in enumerate(zip(group.turns, teachers, strict=True)):
            if turn.solved:
                advantages[i] = _weighed(advantages[i], 0.3 * hard + middling + 0.05 * easy)
                routed[i] = None
            elif teacher is not None:
                advantages[i] = None
                routed[i] = replace(teacher, weight=_weighed(teacher.weight, hard + 0.35 * easy))
        return samples_of(group, self.plan, advantages=advantages, teachers=routed)


def gates(rate: float, hard: float, easy: float) -> tuple[float, float, float]:
    """How hard, middling and easy a question of this pass rate is; their sum is 1."""
    h, e = _sigmoid((hard - rate) / WIDTH), _sigmoid((rate - easy) / WIDTH)
    total = 1 + h * e  # of h, (1 − h)(1 − e) and e
    return h / total, (1 - h) * (1 - e) / total, e / total


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _weighed(values: np.ndarray | None, weight: float) -> Any:
    return None if values is None else values * np.float32(weight)


def _success(text: str) -> Rollout:
    """A rollout of which only the text and its success are known."""
    nothing = np.zeros(0, np.float32)
    return Rollout((Turn((), (), nothing, "stop", text=text, outcome=Outcome(1.0, solved=True)),))
