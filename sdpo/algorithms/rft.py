"""RFT: maximum likelihood of the responses that solved their task; batch after batch, expert iteration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import Likelihood
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.types import Group


class RFTSettings(AlgorithmSettings):
    most_per_question: int | None = Field(
        None, ge=1, description="successes of a question that are learned from, drawn at random; null: all"
    )


class RFT(Likelihood):
    """Rejection sampling: a response is kept if it solved its task, and thrown away otherwise (arXiv 2308.01825).

    The next batch is sampled from the policy that learned from this one: expert iteration (arXiv 1705.08439), in the
    form of ReST-EM (arXiv 2312.06585) without its return to the initial weights.
    """

    Settings = RFTSettings

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.algorithm, RFTSettings)
        super().__init__(recipe)
        self.most = recipe.algorithm.most_per_question

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        assert isinstance(recipe.algorithm, RFTSettings)
        most, responses = recipe.algorithm.most_per_question, recipe.rollout.responses
        if most is not None and most >= responses:
            raise ValueError(
                f"algorithm.most_per_question={most} has no effect with rollout.responses={responses}; lower or "
                "remove it"
            )

    def chosen(self, group: Group, rng: np.random.Generator) -> Sequence[bool]:
        solved = [i for i, rollout in enumerate(group.rollouts) if rollout.solved]
        if self.most is not None and len(solved) > self.most:
            solved = rng.choice(solved, self.most, replace=False).tolist()
        return [i in solved for i, rollout in enumerate(group.rollouts) for _ in rollout.turns]
