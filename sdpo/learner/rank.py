"""One rank of the learner as a Ray actor: `LearnerWorker`, and what the driver asks of its process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import ray

from sdpo.algorithms.base import LossPlan
from sdpo.checkpoints.manifest import Records
from sdpo.config.importing import uncollected
from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings, EnvironmentSettings
from sdpo.learner.operators import Operator, costliest
from sdpo.learner.rows import Row
from sdpo.learner.sums import Sums
from sdpo.supervision.lifeline import die_with
from sdpo.supervision.watch import identity
from sdpo.types import ScoredTokens, TokenCredit

if TYPE_CHECKING:  # torch stays out of the driver
    from sdpo.learner.rendezvous import Rendezvous
    from sdpo.learner.scorer import Head

MicroBatches = list[list[Row]]
Updated = tuple[Sums, dict[str, float], list[list[TokenCredit | None]]]
MOMENTS = {  # by method, as `sdpo plan` calls them; all other calls belong to the start
    **dict.fromkeys(("update", "finish_batch", "first_not_finite", "log_probs", "scores"), "update"),
    **dict.fromkeys(("publish", "teach"), "publish"),
    **dict.fromkeys(("save", "copy", "export", "check_finite"), "checkpoint"),
}
P = ParamSpec("P")
Result = TypeVar("Result")


def _timed(
    method: Callable[Concatenate[LearnerRank, P], Result],
) -> Callable[Concatenate[LearnerRank, P], Result]:
    """The method counts as time at work, and what it takes of the device as that of its moment."""

    @wraps(method)
    def timed(self: LearnerRank, *args: P.args, **kwargs: P.kwargs) -> Result:
        started = time.monotonic()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.busy_seconds += time.monotonic() - started
            self._note_peak(MOMENTS.get(method.__name__, "start"))

    return timed


class LearnerRank:
    """The Ray actor.  It imports torch and DeepSpeed in its own process, so that the driver need not."""

    def __init__(self, recipe: Recipe, plan: LossPlan, rank: int) -> None:
        with uncollected():
            from sdpo.learner.worker import LearnerWorker

        die_with(os.getppid())
        self.worker = LearnerWorker(recipe, plan, rank)
        self.busy_seconds = 0.0
        self.gpu_peaks: dict[str, int] = {}  # bytes, by moment
        self._disk = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Records] = Future()

    @ray.method
    def identity(self) -> tuple[str, int, tuple[str, ...]]:
        return identity()

    @ray.method
    @_timed
    def address(self) -> Rendezvous:
        return self.worker.address()

    @ray.method
    @_timed
    def start(self, address: Rendezvous) -> None:
        self.worker.start(address)

    @ray.method
    @_timed
    def update(self, micro_batches: MicroBatches) -> Updated:
        return self.worker.update(fetched(micro_batches))

    @ray.method
    @_timed
    def finish_batch(self) -> bool:
        return self.worker.finish_batch()

    @ray.method
    @_timed
    def first_not_finite(self, micro_batches: MicroBatches) -> str | None:
        return self.worker.first_not_finite(fetched(micro_batches))

    @ray.method
    @_timed
    def check_finite(self) -> str | None:
        return self.worker.held.first_not_finite()

    @ray.method
    @_timed
    def log_probs(self, micro_batches: MicroBatches) -> list[list[np.ndarray]]:
        return self.worker.passes.log_probs(micro_batches)

    @ray.method
    @_timed
    def scores(self, micro_batches: MicroBatches) -> list[list[ScoredTokens]]:
        return self.worker.scores(fetched(micro_batches))

    @ray.method
    @_timed
    def probe(self, tokens: int) -> tuple[str, list[int], list[int], np.ndarray]:
        return self.worker.passes.probe(tokens)

    @ray.method
    @_timed
    def publish(self, engines: list[Any], version: int, teacher: bool = False, slot: int = 0) -> dict[str, float]:
        return self.worker.publish(engines, version, teacher, slot)

    @ray.method
    @_timed
    def replace_teacher(self, how: Literal["refresh", "freeze"]) -> None:
        self.worker.replace_teacher(how)

    @ray.method
    def checkpoint_size(self) -> int:
        return self.worker.checkpointing.size()

    @ray.method
    @_timed
    def teach(self, ranks: list[Any], version: int) -> None:
        self.worker.teach(ranks, version)

    @ray.method
    @_timed
    def take_head(self, head: Head) -> None:
        self.worker.take_head(head)

    @ray.method
    @_timed
    def save(self, folder: str) -> Records:
        return self.worker.checkpointing.save(folder)

    @ray.method
    @_timed
    def copy(self, folder: str, policy: str) -> None:
        self._writing = self._disk.submit(self.worker.checkpointing.copy(folder, policy))

    @ray.method
    def written(self) -> Records | None:
        """What the last `copy` wrote; None: it is still being written."""
        return self._writing.result() if self._writing.done() else None

    @ray.method
    @_timed
    def load(self, folder: str) -> None:
        self.worker.load(folder)

    @ray.method
    @_timed
    def put_aside(self, name: int) -> None:
        self.worker.put_aside(name)

    @ray.method
    @_timed
    def take_up(self, name: int) -> None:
        self.worker.take_up(name)

    @ray.method
    @_timed
    def export(self, folder: str) -> Records:
        return self.worker.checkpointing.export(folder)

    def _note_peak(self, moment: str) -> None:
        import torch

        if torch.cuda.is_available():
            self.gpu_peaks[moment] = max(self.gpu_peaks.get(moment, 0), torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()

    @ray.method
    def usage(self) -> dict[str, float]:
        """Seconds at work, bytes of memory; of the GPU the peak so far by moment: "generate" is what there is now."""
        import torch

        used = {
            "busy_seconds": self.busy_seconds,
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        if torch.cuda.is_available():
            used |= {f"gpu_{moment}_bytes": peak for moment, peak in self.gpu_peaks.items()}
            used["gpu_generate_bytes"] = torch.cuda.memory_allocated()
        return used

    @ray.method
    def start_profile(self) -> None:
        import torch

        self.profiler = torch.profiler.profile()
        self.profiler.start()

    @ray.method
    def end_profile(self, operators: int) -> tuple[list[Operator], float]:
        self.profiler.stop()
        return costliest(self.profiler.key_averages(), operators)


def for_a_rank(recipe: Recipe, plan: LossPlan) -> tuple[Recipe, LossPlan]:
    """What a rank is given: nothing from a module outside the package, which it need not find."""
    named = {
        "algorithm": AlgorithmSettings(name=recipe.algorithm.name),
        "environment": EnvironmentSettings(kind=recipe.environment.kind, turns=recipe.environment.turns),
    }
    return recipe.model_copy(update=named), replace(plan, weight_hook=None, advantage_hook=None)


def fetched(micro_batches: MicroBatches) -> MicroBatches:
    """With what a teacher of its own has said of the rows in the place of references to it."""
    rows = [row for rows in micro_batches for row in rows]
    references = [ref for row in rows for ref in (row.told, row.untold) if isinstance(ref, ray.ObjectRef)]
    if not references:
        return micro_batches
    found = dict(zip(references, ray.get(references), strict=True))
    return [
        [replace(row, told=found.get(row.told, row.told), untold=found.get(row.untold, row.untold)) for row in rows]
        for rows in micro_batches
    ]
