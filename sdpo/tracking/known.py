"""Numbers of which some could not be computed (None, NaN, infinite): these take no part, and never are the best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, TypeVar

Item = TypeVar("Item")


def is_known(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def known(values: Iterable[Any]) -> list[float]:
    """Those that are, in order."""
    return [value for value in values if is_known(value)]


def mean(values: Iterable[Any]) -> float | None:
    """Of those that are known; None where none is."""
    found = known(values)
    return statistics.fmean(found) if found else None


def beats(value: Any, best: Any) -> bool:
    """Whether a value is better than the best so far: what is not known never is, and anything is better than that."""
    return is_known(value) and (not is_known(best) or value > best)


def best(items: Iterable[Item], value: Callable[[Item], Any]) -> Item | None:
    """The item with the greatest known value, the first of equals; None where no value is known."""
    return max((item for item in items if is_known(value(item))), key=value, default=None)
