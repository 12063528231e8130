"""Searches by training: the policy of the start, trained on one question until it solves it (arXiv 2601.20802 §5).

Until the first success the environment's feedback is all that there is to learn from, and with the first success the
search is over.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from sdpo.algorithms import Algorithm
from sdpo.config.schema import Recipe
from sdpo.discovery.record import Search
from sdpo.discovery.sampling import Advance, solution_of
from sdpo.errors import UserError
from sdpo.learner.group import Learner
from sdpo.learner.skipped import BrokenWeights, TooManySkipped
from sdpo.rollout.generation import Generation
from sdpo.training.serving import Serving
from sdpo.types import Sample, Task


class Searching:
    """Searches in numbered slots, a question after the other in each; all begin with the same weights, bit for bit.

    In the engines every slot has an adapter of its own.  The learner has the state of one slot's question at a time,
    the others' are put aside in its memory; whoever has samples to learn from waits for its turn.  Nothing that a
    question draws or learns depends on the others.  Without adapters in the engines there is one slot.
    """

    def __init__(
        self, recipe: Recipe, make_algorithm: Callable[[Recipe], Algorithm], learner: Learner, serving: Serving
    ) -> None:
        """`make_algorithm`: a new one for every search, since an algorithm may remember what it assigned."""
        self.recipe, self.make_algorithm = recipe, make_algorithm
        self.learner, self.serving = learner, serving
        self._version = 1
        self._turn = asyncio.Lock()
        self._present: int | None = None  # the slot whose question's state the learner has; None: nobody needs it

    async def begin(self, start: Path) -> None:
        """`start`: an empty folder for the state that every search begins with."""
        self.start = start
        await self.serving.publish(self._version)
        await self.learner.save(start)

    async def search(
        self, generation: Generation, task: Task, budget: int, seed: int, advance: Advance, slot: int = 0
    ) -> Search:
        """`generation`: from this slot's adapter.  Raises UserError where the numbers of a step go wrong."""
        async with self._turn_of(slot, begins=True):
            await self._publish(slot)
        algorithm, rng = self.make_algorithm(self.recipe), np.random.default_rng([seed, *task.id.encode()])
        started, attempts, tokens, solved = time.monotonic(), 0, 0, None
        for step in itertools.count(1):
            drawn = [seed, 3, *task.id.encode(), step]
            group = await (await generation.training_group(task, drawn)).graded()
            before, attempts = attempts, attempts + len(group.rollouts)
            tokens += sum(len(turn.response_ids) for turn in group.turns)
            solved = next((rollout.last for rollout in group.rollouts if rollout.solved), None)
            advance(min(attempts, budget) - before)
            if solved is not None or attempts >= budget:
                break
            samples = algorithm.assign([group], generation.contexts, rng)
            if any(map(carries_loss, samples[0])):
                async with self._turn_of(slot):
                    await self._update(samples, task, step)
                    await self._publish(slot)
        if self._present == slot:
            self._present = None
        advance(max(0, budget - attempts))
        return Search(
            method=self.recipe.algorithm.label,
            question=task.id,
            seed=seed,
            attempts=min(attempts, budget),
            solved=int(solved is not None),
            seconds=time.monotonic() - started,
            response_tokens=tokens,
            solution=None if solved is None else await solution_of(generation, task, solved),
        )

    @asynccontextmanager
    async def _turn_of(self, slot: int, begins: bool = False) -> AsyncIterator[None]:
        """Within the context the learner is this slot's question's, with the state that it left, or that of the
        start."""
        async with self._turn:
            if self._present not in (None, slot):
                await self.learner.put_aside(self._present)
            if begins:
                await self.learner.load(self.start)
                self.learner.skipped = 0
            elif self._present != slot:
                await self.learner.take_up(slot)
            self._present = slot
            yield

    async def _update(self, samples: list[list[Sample]], task: Task, step: int) -> None:
        await self.serving.free_gpus()
        try:
            await self.learner.train(samples, step=step)
        except (BrokenWeights, TooManySkipped) as stop:
            raise UserError(
                f"On {task.id}, step {step} left numbers that are not finite ({stop.source}): give a lower learner.lr "
                f"({self.recipe.learner.lr:g}). The same command goes on with this question."
            ) from None

    async def _publish(self, slot: int) -> None:
        self._version += 1
        await self.serving.publish(self._version, slot=slot)


def carries_loss(sample: Sample) -> bool:
    """Whether a step on it would move anything: equal rewards of a group, say, have no advantage."""
    weights = (sample.advantages, sample.reference_weight, sample.teacher and sample.teacher.weight)
    return any(weight is not None and np.any(weight) for weight in weights)
