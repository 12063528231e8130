"""The groups that a run samples and the batches that its steps learn from, by `rollout.mode`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache

import numpy as np

from sdpo.config.schema import Recipe
from sdpo.envs import Dataset
from sdpo.rollout.generation import Generation, PendingGroup
from sdpo.training.checkpoints import TrainerState
from sdpo.training.continuous import Continuous
from sdpo.training.prefetch import Prefetch
from sdpo.types import Task

Progress = Callable[[int], None]


class Batches:
    """Groups are numbered from 0 as their tasks are drawn; the number decides task, seeds and limits of a group.

    A run that goes on begins with those that its checkpoint says were under way (`TrainerState.unlearned`), with the
    same tasks and seeds, and the weights of the moment.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        generation: Generation,
        graded: bool,
        state: TrainerState,
        on_group: Callable[[int, int, PendingGroup], None] = lambda step, index, group: None,
    ) -> None:
        """
        Args:
            graded: whether the algorithm needs rewards.
            state: after the last step that is done.
            on_group: hears of every group that is sampled, and as which of which step's it will be learned from; in
                continuous mode that is not known before the step takes it, and it hears of none.
        """
        self._on_group = on_group
        self._recipe, self._dataset, self._generation, self._graded = recipe, dataset, generation, graded
        self._size, self._done = recipe.run.questions, state.step
        self._again = list(state.unlearned)  # they come first
        self._begun = 0
        rollout, last = recipe.rollout, recipe.run.steps
        self._source: Continuous[PendingGroup] | Prefetch[list[PendingGroup]]
        if rollout.mode == "continuous":
            self._source = Continuous(
                self._graded_group,
                size=self._size,
                responses=rollout.responses,
                at_once=min(rollout.engines * rollout.max_num_seqs, recipe.samples_per_step),
                bound=rollout.staleness,
                done=state.step,
                last=last,
            )
        else:
            self._source = Prefetch(self._batch, rollout.staleness, last)

    async def take(self, step: int, progress: Progress) -> list[PendingGroup]:
        """What a step (counted from 1) learns from; `progress` hears how many of its responses are there."""
        return await self._source.take(step, progress)

    def begin(self, step: int) -> None:
        """Let the engines sample what `step` will learn from, whose version they hold; in continuous mode they do."""
        if isinstance(self._source, Prefetch):
            self._source.begin(step)

    async def settled(self) -> None:
        """Once nothing is under way, and nothing begins before the next batch is asked for."""
        await self._source.settled()

    async def close(self) -> None:
        """Throw away what is under way."""
        await self._source.close()

    def unfinished(self, step: int) -> int:
        """Rollouts that have begun, and that no step up to this one has learned from."""
        return self._recipe.rollout.responses * (self._begun - (step - self._done) * self._size)

    def unlearned(self, step: int) -> list[int]:
        """The groups that are left behind after a step: others, drawn after them, were learned from before them."""
        if isinstance(self._source, Continuous):
            return [*map(self._number, self._source.unlearned(step)), *self._again[self._begun :]]
        return self._again[(step - self._done) * self._size :]

    # ---- groups, by their place in the order in which they begin ----

    def _number(self, place: int) -> int:
        before = place - self._done * self._size
        return self._again[before] if before < len(self._again) else place

    def _graded_group(self, place: int, on_response: Progress) -> Awaitable[PendingGroup]:
        self._begun += 1
        return self._once_graded(self._group(self._number(place), on_response))

    async def _once_graded(self, group: Awaitable[PendingGroup]) -> PendingGroup:
        pending = await group
        await pending.graded()
        return pending

    def _batch(self, step: int, on_response: Progress) -> Awaitable[list[PendingGroup]]:
        self._begun += self._size
        first = (step - 1) * self._size
        return asyncio.gather(
            *(self._of_batch(step, i, self._number(first + i), on_response) for i in range(self._size))
        )

    async def _of_batch(self, step: int, index: int, number: int, on_response: Progress) -> PendingGroup:
        group = await self._group(number, on_response)
        self._on_group(step, index, group)
        return group

    async def _group(self, number: int, on_response: Progress) -> PendingGroup:
        step, index = divmod(number, self._size)
        seed = [self._recipe.seed, step + 1, index]
        return await self._generation.training_group(self.task(number), seed, on_response, self._graded, step + 1)

    def task(self, number: int) -> Task:
        """Seeded permutations of the training tasks, one after the other."""
        tasks = self._dataset.training((number // self._size) / self._recipe.run.steps)
        epoch, place = divmod(number, len(tasks))
        return tasks[_order(self._recipe.seed, epoch, len(tasks))[place]]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, tasks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(tasks)
