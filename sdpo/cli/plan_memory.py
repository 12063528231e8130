"""The part of a plan that says whether it fits: tables of memory, and what would make it fit."""

from __future__ import annotations

from rich.table import Table

from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.memory import total
from sdpo.rollout.memory import GIB
from sdpo.training.memory_plan import KEPT_FREE, MemoryPlan, Planner
from sdpo.training.placement import gpus_needed
from sdpo.training.remedy import LEAST_UTILIZATION, UTILIZATION, Change, changed, smallest_change, words


def placed_on(planner: Planner, recipe: Recipe, gpus: int) -> Change:
    """Who gets which of so many GPUs; nothing where the recipe's own placement has room.

    Raises UserError where the recipe cannot be placed so.
    """
    if recipe.profile == "cpu" or gpus_needed(recipe) <= gpus:
        return {}
    inside: Change = {"teacher.placement": "learner", "teacher.ranks": 1} if recipe.teacher_ranks else {}
    if gpus > 1:
        ranks = gpus // 2
        return {"learner.ranks": ranks, "rollout.engines": gpus - ranks, "rollout.tensor_parallel_size": 1} | inside
    one: Change = inside | {"learner.ranks": 1, "rollout.engines": 1, "rollout.tensor_parallel_size": 1}
    one |= {"rollout.colocated": True}
    if recipe.rollout.staleness:
        one["rollout.staleness"] = 0
    if recipe.rollout.mode == "continuous":
        one["rollout.mode"] = "synchronous"
    if recipe.loads_adapter:
        one["rollout.adapter"] = "merged"
    try:
        share = planner.plan(changed(recipe, one)).largest_utilization
    except UserError:
        return one  # said where memory is counted
    return one | {UTILIZATION: max(LEAST_UTILIZATION, share or 0)}


def memory_lines(planner: Planner, plan: MemoryPlan) -> list[tuple[str, str]]:
    """What fits, what does not, and the smallest change that would."""
    recipe, engine = plan.recipe, plan.engine
    gathered = "each engine's cache" if recipe.rollout.engines > 1 else "the engine's cache"
    lines = [
        (
            "cache",
            f"{max(0, engine.cache) / GIB:,.1f} GiB in {gathered}: {plan.sequences} sequences of "
            f"{recipe.max_model_len:,} tokens",
        ),
        ("host memory", ", ".join(f"{name} {size / GIB:,.1f} GiB" for name, size in plan.host.items())),
    ]
    if (share := plan.largest_utilization) is not None:
        lines.append((UTILIZATION, f"{recipe.rollout.gpu_memory_utilization:g}; at most {share:g} beside the learner"))
    lines.append(("memory", _verdict(plan)))
    if not plan.fits:
        found = smallest_change(planner, recipe)
        nothing = "none that was tried: take a smaller model, or more GPUs (docs/plan.md)"
        lines.append(("smallest change", nothing if found is None else _said(*found)))
    return lines


def _said(change: Change, plan: MemoryPlan) -> str:
    most = max((total(device.phases[device.worst]) / GIB, device.name, device.worst) for device in plan.devices)
    return f"{words(change)} (then at most {most[0]:,.1f} GiB, on {most[1]} to {most[2]}; {plan.sequences} sequences)"


def _verdict(plan: MemoryPlan) -> str:
    if plan.fits:
        return "fits"
    problems = [
        f"{total(device.phases[phase]) / GIB:,.1f} of {device.memory / GIB:,.1f} GiB on {device.name} to {phase}"
        for device in plan.devices
        for phase in device.phases
        if not device.fits(phase)
    ]
    if plan.sequences < 1:
        problems.append("the engine's cache does not hold one sequence")
    return f"does not fit: {'; '.join(problems)} ({KEPT_FREE:.0%} stay free)"


def device_tables(plan: MemoryPlan) -> list[Table]:
    """One per kind of device: parts down, phases across, GiB."""
    tables = []
    for device in plan.devices:
        title = f"{device.count} × {device.name}, {device.memory / GIB:,.1f} GiB"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("GiB")
        for phase in device.phases:
            table.add_column(phase, justify="right")
        parts = dict.fromkeys(name for phase in device.phases.values() for name in phase)
        for name in parts:
            sizes = [phase.get(name, 0) for phase in device.phases.values()]
            if any(sizes):
                table.add_row(name, *(f"{size / GIB:,.2f}" if size else "" for size in sizes))
        sums = [f"{total(phase) / GIB:,.2f}" for phase in device.phases.values()]
        table.add_row("[bold]together", *sums)
        tables.append(table)
    return tables
