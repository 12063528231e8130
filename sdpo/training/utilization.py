"""What share of the time engines and learner worked, and what memory they took."""

from __future__ import annotations

import time

from sdpo.learner.group import Learner
from sdpo.rollout.pool import EnginePool

_MB = 2**20


class Utilization:
    """Differences between calls of `since_last`, which the driver makes once a step."""

    def __init__(self, pool: EnginePool, learner: Learner) -> None:
        self._pool, self._learner = pool, learner
        self._before: dict[str, float] | None = None

    async def since_last(self) -> dict[str, float]:
        """Metrics of the time since the last call, evaluations and checkpoints in it included.

        utilization/engines: share of the wall clock with a response under way, mean over the engines; the rest they are
        idle.  utilization/engines_sequences: responses under way in an engine, mean over the same.
        utilization/learner: share with a call at work, of the busiest rank.  utilization/engines_tokens_per_s: response
        tokens of all engines per second with a response under way.  memory/engines_mb: resident, all processes of all
        engines.  memory/learner_mb: the peak so far, of the rank that took most; memory/learner_gpu_mb/<moment>: the
        same of its GPU in a moment of a step.  utilization/teacher, memory/teacher_mb: the same of a teacher of its
        own, as its ranks told it when they last scored.  The first call knows the memory only.
        """
        engines, ranks = await self._pool.metrics(), await self._learner.usage()
        count = len(self._pool.parts)
        now = {
            "wall": time.monotonic(),
            "engine": engines["busy_seconds"] / count,
            "sequences": engines["sequence_seconds"] / count,
            "tokens": engines["response_tokens"],
            "learner": ranks["busy_seconds"],
        }
        teachers = {} if self._learner.teachers is None else self._learner.teachers.usage()
        now |= {"teacher": teachers["busy_seconds"]} if teachers else {}
        before, self._before = self._before, now
        metrics = {
            "memory/engines_mb": engines["memory_bytes"] / _MB,
            "memory/learner_mb": ranks["memory_bytes"] / _MB,
        }
        for name, value in ranks.items():
            if name.startswith("gpu_"):
                moment = name.removeprefix("gpu_").removesuffix("_bytes")
                metrics[f"memory/learner_gpu_mb/{moment}"] = value / _MB
        if teachers:
            metrics["memory/teacher_mb"] = teachers["memory_bytes"] / _MB
        if before is not None:
            spent = {name: now[name] - before.get(name, 0.0) for name in now}
            if teachers:
                metrics["utilization/teacher"] = max(0.0, spent["teacher"]) / spent["wall"]  # a new rank counts anew
            metrics["utilization/engines"] = spent["engine"] / spent["wall"]
            metrics["utilization/engines_sequences"] = spent["sequences"] / spent["wall"]
            metrics["utilization/learner"] = spent["learner"] / spent["wall"]
            if spent["engine"]:
                metrics["utilization/engines_tokens_per_s"] = spent["tokens"] / spent["engine"]
        return metrics
