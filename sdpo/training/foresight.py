"""A teacher of its own is asked group by group, as soon as a group is graded, while others are still being sampled."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter

import numpy as np

from sdpo.algorithms import Algorithm
from sdpo.config.schema import Recipe
from sdpo.learner.group import Learner
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import PendingGroup
from sdpo.supervision.part import retrieved


class Foresight:
    """What the algorithm will make of a group is told by what it would make of it now; what was foreseen wrongly, or
    not at all, is asked for when the update needs it.

    The teacher of step k is asked once it has its weights, and the algorithm's draws of that step are known: a moving
    average when step k is reached, one that keeps its weights when step k − 1 has assigned credit.
    """

    def __init__(self, recipe: Recipe, algorithm: Algorithm, contexts: ContextBuilder, learner: Learner) -> None:
        self._algorithm, self._contexts, self._learner = algorithm, contexts, learner
        # Another task's demonstrations are known when the whole batch is.
        self._sees = recipe.teacher_ranks > 0 and recipe.context.demonstration_of == "same"
        self._moves = recipe.teacher_has_average
        self._draws: dict[int, asyncio.Future[np.random.Generator]] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}  # and of which step

    def begin(self, step: int, index: int, group: PendingGroup) -> None:
        """Group `index` of the batch of `step` has all its responses."""
        if self._sees:
            task = asyncio.ensure_future(self._ask(step, index, group))
            self._tasks[task] = step
            task.add_done_callback(self._tasks.pop)
            task.add_done_callback(retrieved)  # what went wrong will go wrong again, where it is waited for

    def reached(self, step: int, rng: np.random.Generator) -> None:
        """The step before is complete; rng: as the algorithm will be given it."""
        if not self._opened(step).done():
            self._opened(step).set_result(copy.deepcopy(rng))

    def assigned(self, step: int, rng: np.random.Generator) -> None:
        """Credit of the step is assigned, with these draws behind it."""
        self._draws.pop(step, None)
        if not self._moves:
            self.reached(step + 1, rng)

    def close(self) -> None:
        """Nothing that was foreseen will come."""
        for task in self._tasks:
            task.cancel()
        self._draws.clear()

    def _opened(self, step: int) -> asyncio.Future[np.random.Generator]:
        return self._draws.setdefault(step, asyncio.get_running_loop().create_future())

    async def _ask(self, step: int, index: int, pending: PendingGroup) -> None:
        group = await asyncio.shield(asyncio.ensure_future(pending.graded()))
        draws = copy.deepcopy(await asyncio.shield(self._opened(step)))
        contexts = copy.copy(self._contexts)
        contexts.counts = Counter()  # the others count what is assigned
        samples = self._algorithm.foreseen(group, index, contexts, draws)
        answers = self._learner.answers
        if answers is not None and samples:
            await answers.pool.ask(answers.foreseen(samples), step)
