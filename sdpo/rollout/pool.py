"""The driver's side of sampling: starts N engines as Ray actors and spreads requests over them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sdpo.config.paths import logs_folder
from sdpo.errors import UserError
from sdpo.rollout.config import EngineConfig, environment
from sdpo.rollout.engine import EngineInfo, RolloutEngine
from sdpo.rollout.requests import EngineError, Sampling, response_seed
from sdpo.types import Turn

CONCURRENT_CALLS = 65536  # per engine: vLLM queues requests itself, and control calls must not wait behind them
POLL_SECONDS = 0.5
SHUTDOWN_SECONDS = 15.0

Progress = Callable[[str], None]


class EnginePool:
    """N engines of one kind.

    Use it from an asyncio program::

        pool = EnginePool(config, engines=2)
        await pool.start(print)
        rollouts = await pool.generate_group(prompt_ids, n=8, sampling=Sampling(max_tokens=256), seed=7)
        await pool.shutdown()

    Args:
        config: the same for every engine, except the seed, which is increased by one from engine to engine.
        engines: how many.
        cpus_per_engine: what Ray reserves; 0 where engines and learner share the cores of one machine in turns.
        gpus_per_engine: what Ray reserves; None for the tensor-parallel size, a fraction to share one with the learner.
        group: a Ray placement group with a bundle (a learner rank's GPU, say) per engine; engine i takes bundle i.
    """

    def __init__(
        self,
        config: EngineConfig,
        engines: int,
        *,
        cpus_per_engine: float = 0.0,
        gpus_per_engine: float | None = None,
        group: PlacementGroup | None = None,
    ) -> None:
        if engines < 1:
            raise UserError(f"{engines} rollout engines: at least 1 is needed.")
        self.config = config
        self.handles: list[ActorHandle] = []
        self.infos: list[EngineInfo] = []
        self._load: list[int] = []
        self._count = engines
        self._cpus = cpus_per_engine
        self._gpus = gpus_per_engine
        if gpus_per_engine is None:
            self._gpus = float(config.tensor_parallel_size) if config.device == "cuda" else 0.0
        self._group = group

    # ---- life ----

    def launch(self) -> None:
        """Ask Ray for the actors, without waiting for them.  The learner can start meanwhile."""
        if self.handles:
            return
        self._check_resources()
        strategy: Any = "DEFAULT"
        for index in range(self._count):
            if self._group is not None:
                strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)
            config = dataclasses.replace(self.config, seed=self.config.seed + index)
            actor = ray.remote(RolloutEngine).options(
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                max_concurrency=CONCURRENT_CALLS,
                runtime_env={"env_vars": environment(config)},
                scheduling_strategy=strategy,
            )
            self.handles.append(actor.remote(config))
            self._load.append(0)
        self._ready = [handle.ready.remote() for handle in self.handles]

    def _check_resources(self) -> None:
        """Ray waits without end for resources that no machine has.  Raises UserError instead."""
        total = ray.cluster_resources()
        for name, each in (("CPU", self._cpus), ("GPU", self._gpus)):
            if each * self._count > total.get(name, 0) + 1e-6:
                raise UserError(
                    f"{self._count} rollout engine(s) with {each:g} {name}(s) each do not fit into this Ray cluster, "
                    f"which has {total.get(name, 0):g}. Lower rollout.engines or rollout.tensor_parallel_size, or "
                    "connect to a larger cluster (RAY_ADDRESS)."
                )

    async def start(self, progress: Progress | None = None) -> list[EngineInfo]:
        """Wait until every engine serves; `progress` gets a line whenever there is something new to say.

        Raises:
            UserError: an engine did not start, with the cause and what to do.
        """
        self.launch()
        watcher = asyncio.create_task(self._watch(progress)) if progress else None
        try:
            self.infos = list(await asyncio.gather(*(_result(ref) for ref in self._ready)))
        except BaseException:
            await self.shutdown()
            raise
        finally:
            if watcher:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
        return self.infos

    async def _watch(self, progress: Progress) -> None:
        started = time.monotonic()
        phases = ["waiting for Ray to start its process"] * len(self.handles)
        said: list[str] = []
        while True:
            for index, handle in enumerate(self.handles):
                try:
                    # An engine that is busy importing may not answer in time; then it is still where it was.
                    with contextlib.suppress(TimeoutError):
                        phases[index], _ = await asyncio.wait_for(_result(handle.progress.remote()), POLL_SECONDS)
                except EngineError:
                    return  # `start` reports it
            if phases != said:
                lines = "; ".join(f"engine {index}: {phase}" for index, phase in enumerate(phases))
                progress(f"{lines} ({time.monotonic() - started:.0f} s)")
                said = list(phases)
            await asyncio.sleep(POLL_SECONDS)

    async def shutdown(self) -> None:
        """Stop the engines and their processes; kills what does not stop by itself.  May be called twice."""
        handles, self.handles = self.handles, []
        calls = [asyncio.ensure_future(_result(handle.shutdown.remote())) for handle in handles]
        if calls:
            await asyncio.wait(calls, timeout=SHUTDOWN_SECONDS)
        for call in calls:
            if call.done():
                call.exception()  # retrieved: what a dying engine says does not matter any more
            else:
                call.cancel()
        for handle in handles:
            ray.kill(handle)

    # ---- sampling ----

    def generate(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seed: int, engine: int | None = None
    ) -> list[asyncio.Future[Turn]]:
        """n responses to one prompt, each there as soon as it is finished.

        All come from one engine, whose prefix cache they share: that of an earlier turn (`Turn.engine`), else the one
        with the fewest responses under way.  Response i draws from its own stream, so that neither n, nor other
        requests, nor the choice of the engine change it.

        Raises (the responses, when awaited):
            UserError: the prompt does not fit.  EngineError: the engine cannot serve (see `RolloutEngine.generate`).
        """
        least, prompt = self._least_loaded(), list(prompt_ids)
        index = least if engine is None else engine
        self._load[index] += n  # now, not when the calls run: the next group chooses before that
        seeds = [response_seed(seed, i) for i in range(n)]
        return [asyncio.ensure_future(self._generate(index, prompt, sampling, number)) for number in seeds]

    async def _generate(self, index: int, prompt: list[int], sampling: Sampling, seed: int) -> Turn:
        ref = self.handles[index].generate.remote(prompt, sampling, seed)
        try:
            return dataclasses.replace(await _result(ref), engine=index)
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        finally:
            self._load[index] -= 1

    async def generate_group(self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seed: int) -> list[Turn]:
        """`generate`, all of them at once."""
        return await asyncio.gather(*self.generate(prompt_ids, n, sampling, seed))

    async def score(self, prompt_ids: Sequence[int], response_ids: Sequence[int], engine: int = 0) -> np.ndarray:
        """Log-probs of given tokens, float32 [len(response_ids)]; slow, see `RolloutEngine.score`."""
        return await _result(self.handles[engine].score.remote(list(prompt_ids), list(response_ids)))

    def _least_loaded(self) -> int:
        if not self.handles:
            raise EngineError("The rollout engines are not running: they were not started, or have been shut down.")
        return min(range(len(self.handles)), key=self._load.__getitem__)

    # ---- state ----

    async def versions(self) -> list[int]:
        """Version of the weights in each engine."""
        return list(await asyncio.gather(*(_result(handle.version.remote()) for handle in self.handles)))

    async def metrics(self) -> dict[str, float]:
        """Counters summed over the engines (`EngineMetrics`); tokens_per_second is the sum of the engines' rates."""
        total: dict[str, float] = {}
        for metrics in await asyncio.gather(*(_result(handle.metrics.remote()) for handle in self.handles)):
            for key, value in metrics.items():
                total[key] = total.get(key, 0) + value
        return total

    async def sleep(self, level: int = 1) -> None:
        """All engines give their GPU memory back."""
        await asyncio.gather(*(_result(handle.sleep.remote(level)) for handle in self.handles))

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """All engines take their GPU memory again."""
        await asyncio.gather(*(_result(handle.wake_up.remote(tags)) for handle in self.handles))


async def _result(ref: Any) -> Any:
    """Await a Ray call; errors come out as what the actor raised, not as Ray's wrapping of it."""
    try:
        return await ref
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        raise
    except RayActorError as error:
        raise EngineError(
            f"A rollout engine's process died ({str(error).splitlines()[0]}). If the machine ran out of memory, lower "
            f"gpu_memory_utilization, max_num_seqs or the number of engines. Ray's logs: {logs_folder()}."
        ) from error
