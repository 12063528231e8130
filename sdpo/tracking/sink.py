"""Where a run's numbers go beside its folder.  Nothing that goes wrong in a sink stops the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What a sink shows of a response, of the columns of the rollout table.
COLUMNS = ("step", "problem_id", "prompt", "response", "reward", "verdict", "feedback")


class Sink:
    """Takes the rows of metrics.jsonl; the first failure is told once, and the sink is left out from there on.

    Args:
        name: as the user knows it.
        warn: told, once, what went wrong.
    """

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name, self._warn, self._failed = name, warn, False

    @property
    def description(self) -> str:
        """One line for the user: where the numbers can be looked at."""
        raise NotImplementedError

    def log(self, row: Mapping[str, Any]) -> None:
        """One row; it brings `step` and the other axes beside its metrics, and None for what is not known."""
        raise NotImplementedError

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Some responses of a step, each with the keys `COLUMNS`."""

    def finish(self, exit_code: int = 0) -> None:
        """Close; a second call does nothing."""

    def _try(self, action: Callable[[], Any]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"{self._name} failed and is left out from here on ({line(error)}); metrics.jsonl has all.")


def line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
