"""Searches by training: the policy of the start, trained on one question until it solves it (arXiv 2601.20802 §5).

Until the first success the environment's feedback is all that there is to learn from, and with the first success the
search is over.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
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
    """Questions take turns on the engines and the learner; each begins with the same weights, bit for bit."""

    def __init__(
        self,
        recipe: Recipe,
        make_algorithm: Callable[[Recipe], Algorithm],
        generation: Generation,
        learner: Learner,
        serving: Serving,
    ) -> None:
        """`make_algorithm`: a new one for every search, since an algorithm may remember what it assigned."""
        self.recipe, self.make_algorithm = recipe, make_algorithm
        self.generation, self.learner, self.serving = generation, learner, serving
        self._version = 1

    async def begin(self, start: Path) -> None:
        """`start`: an empty folder for the state that every search begins with."""
        self.start = start
        await self.serving.publish(self._version)
        await self.learner.save(start)

    async def search(self, task: Task, budget: int, seed: int, advance: Advance) -> Search:
        """Raises UserError where the numbers of a step go wrong."""
        await self.learner.load(self.start)
        await self._publish()
        algorithm, rng = self.make_algorithm(self.recipe), np.random.default_rng([seed, *task.id.encode()])
        started, attempts, tokens, solved = time.monotonic(), 0, 0, None
        for step in itertools.count(1):
            drawn = [seed, 3, *task.id.encode(), step]
            group = await (await self.generation.training_group(task, drawn)).graded()
            before, attempts = attempts, attempts + len(group.rollouts)
            tokens += sum(len(turn.response_ids) for turn in group.turns)
            solved = next((rollout.last for rollout in group.rollouts if rollout.solved), None)
            advance(min(attempts, budget) - before)
            if solved is not None or attempts >= budget:
                break
            samples = algorithm.assign([group], self.generation.contexts, rng)
            if any(map(carries_loss, samples[0])):
                await self._update(samples, task, step)
        advance(max(0, budget - attempts))
        return Search(
            method=self.recipe.algorithm.label,
            question=task.id,
            seed=seed,
            attempts=min(attempts, budget),
            solved=int(solved is not None),
            seconds=time.monotonic() - started,
            response_tokens=tokens,
            solution=None if solved is None else await solution_of(self.generation, task, solved),
        )

    async def _update(self, samples: list[list[Sample]], task: Task, step: int) -> None:
        await self.serving.free_gpus()
        try:
            await self.learner.train(samples, step=step)
        except (BrokenWeights, TooManySkipped) as stop:
            raise UserError(
                f"On {task.id}, step {step} left numbers that are not finite ({stop.source}): give a lower learner.lr "
                f"({self.recipe.learner.lr:g}). The same command goes on with this question."
            ) from None
        await self._publish()

    async def _publish(self) -> None:
        self._version += 1
        await self.serving.publish(self._version)


def carries_loss(sample: Sample) -> bool:
    """Whether a step on it would move anything: equal rewards of a group, say, have no advantage."""
    weights = (sample.advantages, sample.reference_weight, sample.teacher and sample.teacher.weight)
    return any(weight is not None and np.any(weight) for weight in weights)
