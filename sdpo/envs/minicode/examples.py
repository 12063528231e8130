"""Inputs that tell the alternatives apart.

A test is worth little when a wrong meaning passes it, or when two meanings explain its expected output: feedback then
teaches nothing.  So inputs are the best of several random ones by the number of rival meanings that they leave alive.
"""

from __future__ import annotations

import json
import random
from typing import Any

from sdpo.envs.code import TestCase
from sdpo.envs.minicode.exercise import Exercise, Slot
from sdpo.envs.minicode.operations import KitFunction, Operation


def _value(meaning: Operation | KitFunction, values: Any) -> Any:
    try:
        return meaning.apply(values)
    except (IndexError, ValueError):
        return None


def _rivals(task: Exercise, slot: Slot, values: Any, result: Any) -> int:
    """How many other meanings of the slot give the same result."""
    if isinstance(slot.meaning, KitFunction):
        return 0
    others = task.family.operations[slot.meaning.slot]
    return sum(_value(other, values) == result for other in others if other is not slot.meaning)


def ambiguity(task: Exercise, values: Any) -> int | None:
    """Rival meanings that this input does not rule out; None when the task has no sensible answer on it."""
    values = task.keep(values)
    count = 0
    if len(values) < 3:
        return None
    if task.map:
        mapped = _value(task.map.meaning, values)
        if len(mapped) < 2:
            return None
        count += _rivals(task, task.map, values, mapped)
        values = mapped
    if task.aggregate:
        result = _value(task.aggregate.meaning, values)
        if result is None:
            return None
        count += _rivals(task, task.aggregate, values, result)
    return count


def best_values(task: Exercise, rng: random.Random, tries: int) -> Any:
    """The least ambiguous of up to `tries` random inputs (more only while none has an answer at all)."""
    best, best_count = None, None
    drawn = 0
    while best is None or drawn < tries:
        drawn += 1
        values = task.family.draw(rng, task.condition is not None)
        count = ambiguity(task, values)
        if count is None:
            continue
        if best_count is None or count < best_count:
            best, best_count = values, count
        if best_count == 0:
            break
    return best


def expected(task: Exercise, values: Any) -> str:
    """What the reference program prints, or returns as JSON."""
    values = task.keep(values)
    lines = []
    if task.map:
        values = task.map.meaning.apply(values)
        lines.append(json.dumps(values) if task.functional else task.family.text(values))
    if task.aggregate:
        lines.append(str(task.aggregate.meaning.apply(values)))
    return "\n".join(lines)


def make_test(task: Exercise, rng: random.Random, tries: int = 12) -> TestCase:
    values = best_values(task, rng, tries)
    if task.functional:
        return TestCase(json.dumps(values), expected(task, values), "functional", "solve")
    return TestCase(task.family.text(values), expected(task, values))
