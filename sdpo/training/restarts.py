"""How often parts of a run may be started again, and the record of it."""

from __future__ import annotations

from sdpo.errors import PartFailed, UserError
from sdpo.tracking import Tracker

_SHOWN = 5


class TooManyRestarts(UserError):
    """A part fails again and again."""


class Restarts:
    """most: of all restarts; same_step: of those without another step complete, for a part that dies of the step."""

    def __init__(self, most: int, same_step: int, tracker: Tracker) -> None:
        self._most, self._same_step, self._tracker = most, same_step, tracker
        self._history: list[str] = []
        self._furthest = self._here = 0

    def permit(self, failure: PartFailed, step: int, action: str, saved: str) -> None:
        """Note one more.

        step: steps that are complete; action: what is going to be done; saved: what the run could be resumed from.
        Raises TooManyRestarts.
        """
        if step > self._furthest:
            self._furthest, self._here = step, 0
        self._here += 1
        self._history.append(f"step {step + 1}: {failure}")
        ended = None
        if len(self._history) > self._most:
            ended = f"run.max_restarts={self._most}"
        elif self._here > self._same_step:
            ended = f"supervision.same_step={self._same_step}"
        what = action if ended is None else f"the run ends ({ended})"
        self._tracker.event(step + 1, failure.part, failure.cause, what)
        if ended is not None:
            last = "; ".join(self._history[-_SHOWN:])
            raise TooManyRestarts(
                f"Parts of this run failed {len(self._history)} times, {self._here} times without another step "
                f"complete ({ended}). The last ones: {last}. The same command goes on from {saved}."
            )
