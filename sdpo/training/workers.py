"""Engines and learner ranks of a run: placed, started side by side, and ended in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group

from sdpo.algorithms import LossPlan
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.group import Learner
from sdpo.learner.rank import for_a_rank
from sdpo.learner.teacher_pool import TeacherPool
from sdpo.rollout.places import ROOM_SECONDS
from sdpo.rollout.pool import EnginePool
from sdpo.tracking import Console
from sdpo.training.parts import as_computed
from sdpo.training.placement import Placement, engine_options, plan_placement
from sdpo.training.supervision import RayLost, Supervision


@asynccontextmanager
async def workers(
    recipe: Recipe,
    plan: LossPlan,
    resources: dict[str, float],
    console: Console,
    checked: Awaitable[object] | None = None,
    policies: int = 1,
) -> AsyncIterator[tuple[EnginePool, Learner]]:
    """Engines and learner ranks, started side by side and ended in order.

    checked: what must have gone well before the learner starts; the engines import vLLM meanwhile.
    policies: whose adapters engines have room for, where they load adapters.
    """
    placement = plan_placement(recipe, resources["CPU"], resources.get("GPU", 0))
    console.message(f"Placement: {placement.description}.")
    group = await reserved(placement.bundles)
    pool = make_pool(recipe, placement, group, policies)
    if checked is not None:
        await _launched_meanwhile(pool, checked)
    learner = Learner(
        as_computed(recipe)[0], plan, placement.learner, group, make_teachers(recipe, plan, placement.teacher)
    )
    try:
        async with Supervision(recipe.supervision, pool, learner, console.message):
            if recipe.rollout.colocated:  # an engine measures its GPU's free memory while it starts
                await announced(console, "starting vLLM engines", pool.start(console.message))
                await pool.sleep()  # its weights are the learner's first publication
            await together(
                announced(console, "starting vLLM engines", pool.start(console.message)),
                announced(console, "starting DeepSpeed ranks", learner.start()),
            )
            yield pool, learner
    except RayLost:
        learner.abandon()
        pool.abandon()
        raise
    finally:
        learner.shutdown()
        await pool.shutdown()


async def _launched_meanwhile(pool: EnginePool, checked: Awaitable[object]) -> None:
    """Let the engines start, and kill them if the rest of the run does not come so far."""
    try:
        pool.launch()
        await checked
    except BaseException:
        pool.kill()
        raise


async def reserved(bundles: tuple[dict[str, float], ...]) -> PlacementGroup | None:
    """The places that engines and ranks share, for which Ray would wait without end.  Raises UserError."""
    if not bundles:
        return None
    group = placement_group(list(bundles), strategy="PACK")
    if not await asyncio.to_thread(group.wait, ROOM_SECONDS):
        each = ", ".join(f"{amount:g} {name}" for name, amount in bundles[0].items())
        raise UserError(
            f"Ray has had no room for {len(bundles)} × ({each}) for {ROOM_SECONDS:.0f} s. Each must be on one machine: "
            "see `ray status` for what is free, end what takes it, or lower learner.ranks and rollout.engines."
        )
    return group


async def announced(console: Console, name: str, work) -> None:
    with console.phase(name, announce=True):
        await work


async def together(*work: Awaitable[None]) -> None:
    """Run side by side; if one fails or the user stops, none is left running behind this call."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def make_pool(
    recipe: Recipe, placement: Placement, group: PlacementGroup | None = None, policies: int = 1
) -> EnginePool:
    return EnginePool(
        engine_options(recipe, policies),
        recipe.rollout.engines,
        cpus_per_engine=placement.engine_cpus,
        gpus_per_engine=placement.engine_gpus,
        group=group,
    )


def make_teachers(recipe: Recipe, plan: LossPlan, options: dict[str, Any] | None) -> TeacherPool | None:
    """The ranks of a teacher of its own, if it has some; `options`: resources of one."""
    if options is None or not recipe.teacher_ranks:
        return None
    return TeacherPool(for_a_rank(as_computed(recipe.of_teacher())[0], plan)[0], options)
