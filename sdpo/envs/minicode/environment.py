"""minicode as an environment: generated problems, otherwise code with tests like any other."""

from __future__ import annotations

from typing import ClassVar

from sdpo.config.schema import Recipe
from sdpo.envs.base import Inert, Progress
from sdpo.envs.code.environment import SANDBOX_OPTIONS, CodeEnvironment
from sdpo.envs.code.splits import ProblemSet
from sdpo.envs.minicode.load import load_minicode

HARD = "hard"  # of `data.subset`: problems of two unknown words


class MinicodeEnvironment(CodeEnvironment):
    """A world's problems, written as LiveCodeBench rows and read back by the same loader."""

    reads = SANDBOX_OPTIONS | {
        f"data.{option}" for option in ("source", "subset", "test_split", "problem_split", "world_seed")
    }

    sources = ("minicode",)

    inert: ClassVar[Inert] = (
        *CodeEnvironment.inert,
        ("context.trust_statements", lambda recipe: True, "with minicode, whose statements hold no special tokens"),
    )

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.data.problem_split != "marked":
            raise ValueError("minicode says itself which problems are held out; set data.problem_split=marked")
        if recipe.data.subset not in (None, HARD):
            raise ValueError(
                f"data.subset={recipe.data.subset} is no part of minicode; set {HARD}, or null for a world"
            )

    @property
    def world(self) -> int:
        """The seed that gives words their meanings."""
        return self.recipe.data.world_seed

    def problems(self, progress: Progress | None = None) -> ProblemSet:
        data = self.recipe.data
        return load_minicode(self.world, hard=data.subset == HARD, test_split=data.test_split, limits=self.limits)
