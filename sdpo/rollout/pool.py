"""The driver's side of sampling: starts N engines as Ray actors and spreads requests over them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from sdpo.rollout.metrics import EngineMetrics
from sdpo.rollout.places import Place, Places
from sdpo.rollout.requests import EngineError, Memory, Sampling, response_seed
from sdpo.types import Turn


class EnginePool(Places):
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

    # ---- sampling ----

    def generate(
        self,
        prompt_ids: Sequence[int],
        n: int,
        sampling: Sampling,
        seed: int,
        engine: int | None = None,
        slot: int = 0,
    ) -> list[asyncio.Future[Turn]]:
        """n responses to one prompt, each there as soon as it is finished.

        All come from one engine, whose prefix cache they share: that of an earlier turn (`Turn.engine`), else the one
        with the fewest responses under way.  Response i draws from its own stream, so that neither n, nor other
        requests, nor the choice of the engine change it.  slot: of the adapter, where engines load adapters.

        Raises (the responses, when awaited):
            UserError: the prompt does not fit.  EngineError: the engine cannot serve (see `RolloutEngine.generate`).
        """
        if not self._places:
            raise EngineError("The rollout engines are not running: they were not started, or have been shut down.")
        place, prompt = self._chosen(engine) or self._places[0], list(prompt_ids)
        place.load += n  # now, not when the calls run: the next group chooses before that
        seeds = [response_seed(seed, i) for i in range(n)]
        return [asyncio.ensure_future(self._generate(place, prompt, sampling, number, slot)) for number in seeds]

    async def _generate(self, place: Place, *asked: Any) -> Turn:
        """The same response from whichever engine lives to finish it; on a lost one it is begun again."""
        try:
            while True:
                if place.replacing is not None:
                    place.load -= 1
                    place = await self._serving()
                    place.load += 1
                ref = place.handle.generate.remote(*asked)
                try:
                    return dataclasses.replace(await self._answer(place, "generate", ref), engine=place.index)
                except EngineError:
                    if place.replacing is None:
                        raise
                except asyncio.CancelledError:
                    ray.cancel(ref)
                    raise
        finally:
            place.load -= 1

    async def generate_group(self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seed: int) -> list[Turn]:
        """`generate`, all of them at once."""
        return await asyncio.gather(*self.generate(prompt_ids, n, sampling, seed))

    async def score(self, prompt_ids: Sequence[int], response_ids: Sequence[int], engine: int = 0) -> np.ndarray:
        """Log-probs of given tokens, float32 [len(response_ids)]; slow, see `RolloutEngine.score`."""
        place = self._places[engine]
        return await self._on(place, "score", list(prompt_ids), list(response_ids))

    # ---- state ----

    async def versions(self) -> list[int]:
        """Version of the weights in each engine."""
        return [version for _, version in await self._each("version")]

    async def metrics(self) -> dict[str, float]:
        """Counters summed over the engines (`EngineMetrics`); tokens_per_second is the sum of the engines' rates."""
        for place, metrics in await self._each("metrics"):
            place.seen = metrics
        counted = [place.seen for place in self._places] + [self._gone]
        return {name: sum(values.get(name, 0.0) for values in counted) for name in EngineMetrics().snapshot()} | {
            "memory_bytes": sum(values.get("memory_bytes", 0.0) for values in counted)
        }

    async def sleep(self) -> None:
        """All engines give their GPU memory back, and forget their weights."""
        self._awake.clear()  # no engine may start before they wake
        await self._each("sleep")

    async def wake_up(self, memory: Memory) -> None:
        """All engines take their GPU memory again: that of the weights, to get new ones, and then that of the cache."""
        await self._each("wake_up", memory)
        if memory == "kv_cache":
            self._awake.set()
