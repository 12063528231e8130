"""What is done where an engine, or a rank of a teacher of its own, is lost: it is replaced, and the loop goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sdpo.errors import PartFailed, UserError
from sdpo.learner.group import Learner
from sdpo.training.restarts import Restarts

ENGINE = "it is replaced, and its unfinished responses are made again"
TEACHER = "it is replaced, and what it had not finished is scored again"


class Replacing:
    """The `Recovery` of engines, or of a teacher's own ranks."""

    def __init__(
        self,
        action: str,
        give_weights: Callable[[Any], Awaitable[None]],
        restarts: Restarts,
        learner: Learner,
        state: Callable[[], tuple[int, str]],
    ) -> None:
        """action: what is written down; give_weights: to a fresh one; state: steps that are complete, and what the run
        could be resumed from."""
        self._action, self._give = action, give_weights
        self._restarts, self._learner, self._state = restarts, learner, state

    def permit(self, failure: PartFailed) -> None:
        """Raises UserError where that has been done too often, which ends the run."""
        done, saved = self._state()
        try:
            self._restarts.permit(failure, done, self._action, saved)
        except UserError as ended:
            for part in self._learner.parts:
                part.fail(ended)
            raise

    async def give_weights(self, replaced: Any) -> None:
        await self._give(replaced)
