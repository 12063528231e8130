"""Measuring a policy: every task sampled and graded, then counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sdpo.envs import Dataset
from sdpo.evaluation import EvaluationResult, count
from sdpo.rollout.generation import Generation
from sdpo.types import Group, Task

CONCURRENT_TASKS = 64


@dataclass(frozen=True)
class Evaluation:
    """The numbers, and the graded groups that they count, both in the order of the tasks."""

    result: EvaluationResult
    groups: tuple[Group, ...]


async def evaluate(
    generation: Generation,
    tasks: Sequence[Task],
    dataset: Dataset,
    name: str = "",
    on_outcome: Callable[[], None] = lambda: None,
) -> Evaluation:
    """pass@k on `tasks` by the recipe's section `evaluation`; `name` is what results call them beside their dataset.

    Whatever sampling or grading raises ends the evaluation at once, with that error, after everything still running was
    cancelled; so does cancelling it.
    """
    recipe, gate = generation.recipe, asyncio.Semaphore(CONCURRENT_TASKS)

    async def group(task: Task) -> Group:
        async with gate:
            return await generation.evaluation_group(task, recipe.evaluation_samples, on_outcome)

    groups = await together([group(task) for task in tasks])
    result = count(
        groups,
        ks=recipe.evaluation.ks,
        sampling=recipe.evaluation.model_dump(include={"temperature", "top_p"}),
        dataset=f"{dataset.name}, {name}" if name else dataset.name,
        test_split=dataset.test_split,
        problem_split=dataset.problem_split,
        thinking=recipe.evaluation.thinking,
        most_turns=recipe.turns("evaluation"),
    )
    return Evaluation(result, tuple(groups))


async def together(coroutines: Sequence[Coroutine[Any, Any, Group]]) -> list[Group]:
    """Results in order; the first error cancels the rest and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as running:
            tasks = [running.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
