"""Whether there is still something to learn from the teacher: its pass rate with its hints beside the policy's.

A probe asks, always on the same training tasks and with the same random numbers: the policy; then, about each of its
responses, the teacher, told what training would tell it.  The teacher answers with its own weights, which the engines
get through the usual publication; afterwards they have the policy's again.  It changes nothing of the training.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdpo.algorithms import Algorithm
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset, Environment
from sdpo.evaluation import pass_at_k
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.rollout.pool import EnginePool
from sdpo.tracking.known import known
from sdpo.training.evaluate import together
from sdpo.training.ngrams import copied
from sdpo.types import Group, Hint

# Streams of random numbers beside those of training, whose seeds are [seed, step, group].
_TASKS, _STUDENT, _HINTS, _TEACHER = (0, 1), (0, 2), (0, 3), (0, 4)


@dataclass(frozen=True)
class Asked:
    """A task, the policy's rollouts, and of those with a hint: the hint and the teacher's prompt."""

    student: Group
    hints: tuple[Hint, ...]
    prompts: tuple[tuple[int, ...], ...]


class Probe:
    """`due` says when, `run` makes one."""

    def __init__(
        self,
        recipe: Recipe,
        environment: Environment,
        algorithm: Algorithm,
        dataset: Dataset,
        tokenizer: Any,
        pool: EnginePool,
    ) -> None:
        self.recipe, self.algorithm = recipe, algorithm
        self.contexts = ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)  # training counts its own
        self.generation = Generation(recipe, environment, self.contexts, tokenizer, pool)
        order = np.random.default_rng([recipe.seed, *_TASKS]).permutation(len(dataset.train))
        self.tasks = [dataset.train[i] for i in order[: recipe.probe_tasks]]

    def due(self, step: int) -> bool:
        """Whether the policy that begins `step` is probed."""
        return bool(self.recipe.probe.every) and (step - 1) % self.recipe.probe.every == 0

    async def run(self, serve: Callable[[bool], Awaitable[None]], on_task: Callable[[], None]) -> dict[str, float]:
        """The numbers of a probe (`probe/…`).

        serve: gives the engines the teacher's weights (True), or the policy's back (False).  on_task: hears of every
        task whose responses are there.
        """
        samples = self.recipe.probe.samples
        prompts = [[self.contexts.prompt(task)] * samples for task in self.tasks]
        students = await self._answers(prompts, _STUDENT, on_task)
        numbers = {f"probe/student/pass@{k}": _pass_at(students, k) for k in sorted({1, samples})}
        if self.recipe.teacher is None:
            return numbers
        self.contexts.batch = students
        asked = [self._asked(group, i) for i, group in enumerate(students)]
        numbers["probe/hinted"] = sum(len(each.hints) for each in asked) / (samples * len(asked))
        if not numbers["probe/hinted"]:
            return numbers
        if self.recipe.teacher.refresh == "probe":
            candidate = await self._answers([each.prompts for each in asked], _TEACHER)
            numbers["probe/candidate/pass@1"] = _pass_at(candidate, 1)
        own = self.recipe.teacher.kind != "live" or self.recipe.teacher_is_replaced
        if own:
            await serve(True)
        teacher = await self._answers([each.prompts for each in asked], _TEACHER)
        if own:
            await serve(False)
        numbers["probe/teacher/pass@1"] = _pass_at(teacher, 1)
        gaps = [_rate(group) - _rate(each.student) for group, each in zip(teacher, asked, strict=True) if each.hints]
        numbers["probe/gap"] = _mean(gaps)
        shown = [share for group, each in zip(teacher, asked, strict=True) for share in self._copied(group, each)]
        if shown:
            numbers["probe/copied"] = _mean(shown)
        return numbers

    def _asked(self, group: Group, index: int) -> Asked:
        """What the teacher is told of each rollout's first turn, where the engines have room for it and an answer."""
        rng = np.random.default_rng([self.recipe.seed, *_HINTS, index])
        room = self.recipe.max_model_len - self.recipe.rollout.max_response_tokens
        hints, prompts = [], []
        for number, rollout in enumerate(group.rollouts):
            told = self.algorithm.told(group, number, self.contexts, rng, 0)
            if told is not None and not rollout.turns[0].ungradable and len(told.prompt_ids) <= room:
                hints.append(told.hint)
                prompts.append(told.prompt_ids)
        return Asked(group, tuple(hints), tuple(prompts))

    async def _answers(
        self,
        prompts: Sequence[Sequence[Sequence[int]]],
        stream: tuple[int, int],
        on_task: Callable[[], None] = lambda: None,
    ) -> list[Group]:
        """For each task, a rollout behind each of its prompts."""

        async def group(index: int) -> Group:
            seed = [self.recipe.seed, *stream, index]
            answered = await self.generation.group_behind(self.tasks[index], prompts[index], seed)
            on_task()
            return answered

        return await together([group(i) for i in range(len(prompts))])

    def _copied(self, group: Group, asked: Asked) -> list[float]:
        """Of each of the teacher's responses to a demonstration, the share that is the demonstration's."""
        tokenize = self.generation.tokenizer.encode
        return [
            copied(rollout.turns[0].response_ids, tokenize(hint.demonstration, add_special_tokens=False))
            for rollout, hint in zip(group.rollouts, asked.hints, strict=True)
            if hint.demonstration
        ]


def _rate(group: Group) -> float:
    """Solved ones of those that could be graded; NaN: none could."""
    return _mean([rollout.solved for rollout in group.rollouts if rollout.graded])


def _pass_at(groups: Sequence[Group], k: int) -> float:
    """pass@k over the tasks with k graded rollouts or more; NaN: there is none."""
    counts = [(int(group.graded.sum()), sum(rollout.solved for rollout in group.rollouts)) for group in groups]
    return _mean([float(pass_at_k(n, c, k)) for n, c in counts if n >= k])


def _mean(values: Sequence[float]) -> float:
    """Of those that are known; NaN: none is."""
    return float(np.mean(found)) if (found := known(values)) else float("nan")
