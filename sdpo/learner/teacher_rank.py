"""One rank of a teacher of its own as a Ray actor.  It knows of no other rank, and can be replaced at any time."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from sdpo.config.schema import Recipe
from sdpo.errors import PartFailed
from sdpo.supervision.lifeline import die_with
from sdpo.supervision.watch import identity

if TYPE_CHECKING:  # torch stays out of the driver
    from sdpo.learner.scorer import Pair


@dataclass(frozen=True)
class ReceiverInfo:
    """What `sdpo.weights.publisher` asks of whoever gets weights."""

    dtype: str
    weight_transfer: str = "objects"


class TeacherRank:
    """It takes weights as an engine does, with the methods of `RolloutEngine` that the publisher calls."""

    def __init__(self, recipe: Recipe, name: str) -> None:
        die_with(os.getppid())
        self.recipe, self.name = recipe, name
        self.version = 0  # of the weights: 0 for those of the model's folder, -1 while they are incomplete
        self.busy_seconds = 0.0
        self._sums: dict[str, int] = {}

    @ray.method
    def identity(self) -> tuple[str, int, tuple[str, ...]]:
        return identity()

    @ray.method
    def start(self) -> None:
        from sdpo.learner.scorer import Scorer

        self.scorer = Scorer(self.recipe)

    @ray.method
    def score(self, pairs: Sequence[Pair], version: int) -> tuple[Any, ...]:
        """One return for every pair (`Scorer.score`), and a last one that says that they are there: `_usage`.

        Raises PartFailed where it does not hold this version of the weights.
        """
        if self.version != version:
            raise PartFailed(self.name, f"it holds version {self.version} of its weights instead of {version}", "score")
        started = time.monotonic()
        found = self.scorer.score(pairs)
        self.busy_seconds += time.monotonic() - started
        return (*found, self._usage())

    @ray.method
    def head(self) -> tuple[Any, bool]:
        """The output projection, and what says that it is there."""
        return self.scorer.head(), True

    def _usage(self) -> dict[str, float]:
        """Seconds at work, and the peak of its memory in bytes."""
        import torch

        used = {
            "busy_seconds": self.busy_seconds,
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        if torch.cuda.is_available():
            used["gpu_bytes"] = torch.cuda.max_memory_allocated()
        return used

    # ---- its weights ----

    @ray.method
    def describe(self) -> ReceiverInfo:
        return ReceiverInfo(self.recipe.model.dtype)

    @ray.method
    def pause(self) -> None:
        """Nothing is under way: calls are answered one after the other."""

    @ray.method
    def start_weight_update(self) -> None:
        self.version, self._sums = -1, {}

    @ray.method
    def update_weights(self, sent: Any) -> None:
        """One bucket, or the checksums of all that was sent.  Raises WeightTransferError where they differ."""
        from sdpo.weights.checksum import checksum
        from sdpo.weights.errors import WeightTransferError
        from sdpo.weights.send_objects import received

        if not isinstance(sent, dict):
            bucket = received(sent)
            self._sums |= {name: checksum(tensor) for name, tensor in bucket}
            self.scorer.load(bucket)
            return
        expected = sent["checksums"]
        if expected != self._sums or expected.keys() != self.scorer.moving.keys():
            wrong = sorted(
                name
                for name in expected.keys() | self._sums.keys() | self.scorer.moving.keys()
                if expected.get(name) != self._sums.get(name) or name not in self.scorer.moving or name not in expected
            )
            raise WeightTransferError(f"{self.name} does not hold what the learner sent: {', '.join(wrong[:3])}")

    @ray.method
    def finish_weight_update(self, version: int) -> int:
        self.version = version
        return version

    @ray.method
    def resume(self) -> None:
        """See `pause`."""

    @ray.method
    def abandon_weight_update(self, reason: str) -> None:
        """Its weights are in pieces: it refuses to score until others have arrived."""
        self.version = -1
