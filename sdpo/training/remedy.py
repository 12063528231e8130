"""The smallest change of a recipe that makes it fit: a short ordered list is searched with the count of memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from sdpo.config.schema import Recipe, changed
from sdpo.errors import UserError
from sdpo.training.memory_plan import MemoryPlan, Planner

Change = dict[str, Any]  # option → value

MOST_CHANGES = 3  # at a time
HALVINGS = 4
LEAST_UTILIZATION, MOST_UTILIZATION = 0.05, 0.9  # that are worth trying; the most on GPUs of the engines' own
UTILIZATION = "rollout.gpu_memory_utilization"


def smallest_change(planner: Planner, recipe: Recipe) -> tuple[Change, MemoryPlan] | None:
    """The first change that fits, and its plan: single ones before two or three together.  None: none of them does.

    In this order: smaller micro-batches, activations computed anew, all shared out by ZeRO-3, another share for the
    engines, the optimiser on the host while they work, an adapter.
    """
    kinds = [list(kind) for kind in _changes(recipe) if kind]
    for count in range(1, MOST_CHANGES + 1):
        for chosen in combinations(kinds, count):
            for change in _products(chosen):
                if (plan := tried(planner, recipe, change)) is not None:
                    return plan
    return None


def _changes(recipe: Recipe) -> Iterator[list[Change]]:
    """By kind, each kind in its own order."""
    learner = recipe.learner
    tokens, least = learner.micro_batch_tokens, recipe.max_model_len
    sizes = [tokens >> times for times in range(1, HALVINGS + 1) if tokens >> times > least]
    if tokens > least:
        sizes.append(least)
    yield [{"learner.micro_batch_tokens": size} for size in sizes]
    yield [] if learner.gradient_checkpointing else [{"learner.gradient_checkpointing": True}]
    yield [{"learner.zero_stage": 3}] if learner.ranks > 1 and learner.zero_stage < 3 else []
    yield [{UTILIZATION: None}] if recipe.profile == "gpu" else []  # its value follows from the others
    yield [{"learner.offload_states": True}] if recipe.rollout.colocated and not learner.offload_states else []
    yield [] if recipe.model.adapter is not None else [{"model.adapter": {"rank": 16}}]


def _products(kinds: tuple[list[Change], ...]) -> Iterator[Change]:
    if not kinds:
        yield {}
        return
    for first in kinds[0]:
        for rest in _products(kinds[1:]):
            yield first | rest


def tried(planner: Planner, recipe: Recipe, change: Change) -> tuple[Change, MemoryPlan] | None:
    """The change with all its values, and its plan; None if the recipe would not be one, or would not fit."""
    try:
        plan = planner.plan(changed(recipe, {k: v for k, v in change.items() if v is not None}))
        if UTILIZATION in change:
            shared = plan.largest_utilization
            largest = MOST_UTILIZATION if shared is None else shared
            if largest < LEAST_UTILIZATION:
                return None
            change = change | {UTILIZATION: largest}
            plan = planner.plan(changed(recipe, change))
    except (UserError, ValidationError):
        return None
    return (change, plan) if plan.fits else None


def words(change: Change) -> str:
    """As options on the command line."""
    flat = {}
    for option, value in change.items():
        flat |= {f"{option}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {option: value}
    return " ".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in flat.items())
