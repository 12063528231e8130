"""A discovery from top to bottom: measure hardness, choose questions, search each with every method, write the page."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from sdpo.algorithms import build_algorithm
from sdpo.config.schema import Recipe
from sdpo.discovery import sampling
from sdpo.discovery.learning import Searching
from sdpo.discovery.record import DiscoveryFolder, Hardness, Search
from sdpo.discovery.sampling import Advance
from sdpo.errors import UserError
from sdpo.evaluation.passk import pass_at_k
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.rollout.pool import EnginePool
from sdpo.tracking import Console
from sdpo.training.engine_check import check_engines
from sdpo.training.launch import cluster
from sdpo.training.parts import Parts
from sdpo.training.placement import plan_placement
from sdpo.training.serving import Serving
from sdpo.training.workers import announced, make_pool, together, workers
from sdpo.types import Task

_AT_ONCE = 32  # questions
Sample = Callable[[Generation, Task, int, int, Advance], Awaitable[Search]]


async def discover(recipes: Mapping[str, Recipe], parts: Parts, folder: DiscoveryFolder, console: Console) -> None:
    """`recipes`: by algorithm, alike in all but how they train; the first one's settings hold for sampling."""
    recipe = next(iter(recipes.values()))
    tasks = {task.id: task for task in (*parts.dataset.train, *parts.dataset.evaluation)}
    async with cluster(console) as resources:
        questions = _chosen(folder, tasks)
        if not questions or any(_left(recipe, m, questions, folder, seeds) for m, _, seeds in _sampling(recipe)):
            async with _sampled(recipe, parts, resources, console) as generation:
                if folder.hardness is None:
                    folder.write_hardness(await _choose(recipe, tasks, generation, console))
                await _sample(recipe, _chosen(folder, tasks), generation, folder, console)
        questions = _chosen(folder, tasks)
        for algorithm, own in recipes.items():
            left = _left(own, algorithm, questions, folder, own.discovery.seeds)
            if left:
                await _search(own, left, parts, resources, folder, console)


def _chosen(folder: DiscoveryFolder, tasks: Mapping[str, Task]) -> list[Task]:
    return [tasks[question] for question, found in (folder.hardness or {}).items() if found.chosen]


def _left(
    recipe: Recipe, method: str, questions: list[Task], folder: DiscoveryFolder, seeds: int
) -> list[tuple[Task, int]]:
    done = {search.unit for search in folder.searches}
    pairs = [(task, recipe.seed + number) for number in range(seeds) for task in questions]
    return [(task, seed) for task, seed in pairs if (method, task.id, seed) not in done]


def _sampling(recipe: Recipe) -> tuple[tuple[str, Sample, int], ...]:
    """What searches without training: name, function, seeds."""
    return (
        (sampling.BEST_OF_K, sampling.best_of_k, 1),
        (sampling.MULTI_TURN, sampling.multi_turn, recipe.discovery.seeds),
    )


@asynccontextmanager
async def _sampled(
    recipe: Recipe, parts: Parts, resources: dict[str, float], console: Console
) -> AsyncIterator[Generation]:
    """Engines with the policy as it is, without a learner."""
    placement = plan_placement(recipe, resources["CPU"], resources.get("GPU", 0), learner=False)
    pool = make_pool(recipe, placement)
    try:
        await announced(console, "starting vLLM engines", pool.start(console.message))
        yield _generation(recipe, parts, pool)
    finally:
        await pool.shutdown()


def _generation(recipe: Recipe, parts: Parts, pool: EnginePool, slot: int = 0) -> Generation:
    contexts = ContextBuilder(parts.tokenizer, recipe.context, recipe.model.thinking)
    return Generation(recipe, parts.environment, contexts, parts.tokenizer, pool, slot)


async def _choose(
    recipe: Recipe, tasks: Mapping[str, Task], generation: Generation, console: Console
) -> dict[str, Hardness]:
    """Every task's hardness; the chosen ones are those that are hard enough, drawn by the seed if there are more."""
    settings, gate = recipe.discovery, asyncio.Semaphore(_AT_ONCE)
    with console.phase("measuring hardness", total=len(tasks) * settings.hardness_samples, announce=True) as progress:

        async def measured(task: Task) -> Hardness:
            async with gate:
                return await sampling.hardness(
                    generation, task, settings.hardness_samples, recipe.seed, progress.advance
                )

        found = dict(zip(tasks, await asyncio.gather(*map(measured, tasks.values())), strict=True))
    hard = [
        question
        for question, each in found.items()
        if pass_at_k(each.samples, each.solved, settings.hardness_k) <= settings.max_pass_at_k
    ]
    if not hard:
        raise UserError(
            f"None of {len(tasks)} questions has pass@{settings.hardness_k} of at most {settings.max_pass_at_k:g} by "
            f"{settings.hardness_samples} samples. Raise discovery.max_pass_at_k, or take harder tasks."
        )
    order = np.random.default_rng(recipe.seed).permutation(len(hard))
    drawn = {hard[i] for i in order[: settings.questions]}
    console.message(
        f"{len(hard)} of {len(tasks)} questions have pass@{settings.hardness_k} of at most "
        f"{settings.max_pass_at_k:g}; {len(drawn)} are searched."
    )
    return {question: Hardness(each.samples, each.solved, question in drawn) for question, each in found.items()}


async def _sample(
    recipe: Recipe, questions: list[Task], generation: Generation, folder: DiscoveryFolder, console: Console
) -> None:
    budget = recipe.discovery.budget
    for method, search, seeds in _sampling(recipe):
        left = _left(recipe, method, questions, folder, seeds)
        gate = asyncio.Semaphore(_AT_ONCE)
        with console.phase(f"searching: {method}", total=len(left) * budget, announce=True) as progress:

            async def one(task: Task, seed: int, search=search, gate=gate, advance: Advance = progress.advance) -> None:
                async with gate:
                    folder.append(await search(generation, task, budget, seed, advance))

            async with asyncio.TaskGroup() as running:
                for task, seed in left:
                    running.create_task(one(task, seed))


async def _search(
    recipe: Recipe,
    left: list[tuple[Task, int]],
    parts: Parts,
    resources: dict[str, float],
    folder: DiscoveryFolder,
    console: Console,
) -> None:
    plan, budget = build_algorithm(recipe).plan, recipe.discovery.budget
    slots = min(recipe.searched_at_once, len(left))
    async with workers(recipe, plan, resources, console, policies=slots) as (pool, learner):
        searching = Searching(recipe, build_algorithm, learner, Serving(recipe, pool, learner))
        with tempfile.TemporaryDirectory(prefix="start-") as start:
            await searching.begin(Path(start))
            await check_engines(learner, pool)
            title = f"searching: {recipe.algorithm.label}"
            with console.phase(title, total=len(left) * budget, announce=True) as progress:
                waiting = iter(left)

                async def searched(slot: int) -> None:
                    """One question after the other in this slot."""
                    generation = _generation(recipe, parts, pool, slot)
                    for task, seed in waiting:
                        folder.append(await searching.search(generation, task, budget, seed, progress.advance, slot))

                await together(*map(searched, range(slots)))
