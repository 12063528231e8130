"""Properties that hold for any input: a few inputs in the fast tier, many in the slow one, and how many there were."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings


def holds_for(fast: int, slow: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The decorated function checks one input; pytest gets a test of `fast` inputs, and a slow one of `slow`."""

    def made(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("inputs", [fast, pytest.param(slow, marks=pytest.mark.slow)])
        @pytest.mark.timeout(1200)
        def test(inputs: int, record_property: Callable[[str, Any], None]) -> None:
            seen = 0

            @settings(
                max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                derandomize=inputs == fast,
            )  # fmt: skip
            @given(**strategies)
            def run(**values: Any) -> None:
                nonlocal seen
                seen += 1
                check(**values)

            run()
            record_property("inputs", seen)
            print(f"{check.__name__}: {seen:,} inputs")

        functools.update_wrapper(test, check, assigned=("__name__", "__doc__", "__module__"), updated=())
        del test.__wrapped__
        return test

    return made
