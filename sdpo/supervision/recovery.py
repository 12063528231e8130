"""What those who have lost actors replaced ask of the run: whether they may, and the weights for a fresh one."""

from __future__ import annotations

from typing import Protocol

from ray.actor import ActorHandle

from sdpo.errors import PartFailed


class Recovery(Protocol):
    """Of engines (`sdpo.rollout.places`) and of a teacher's own ranks (`sdpo.learner.teacher_pool`)."""

    def permit(self, failure: PartFailed) -> None:
        """Note that an actor is about to be replaced.  Raises UserError where that has been done too often."""

    async def give_weights(self, replaced: ActorHandle) -> None:
        """Give a fresh one the weights that the others have."""
