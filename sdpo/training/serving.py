"""Which weights the engines sample from: the policy's, and while a probe asks the teacher, the teacher's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from sdpo.config.schema import Recipe
from sdpo.errors import PartFailed
from sdpo.learner.group import Learner
from sdpo.rollout.pool import EnginePool


class Serving:
    """`lock` is held while the learner's weights are not those of a complete step."""

    def __init__(self, recipe: Recipe, pool: EnginePool, learner: Learner) -> None:
        self.pool, self.learner = pool, learner
        self.lock = asyncio.Lock()
        self._colocated, self._retry_s = recipe.rollout.colocated, recipe.supervision.heartbeat_s
        self._served = 1, False  # version, and whether it is the teacher

    async def free_gpus(self) -> None:
        """Engines that share their GPUs with the learner give their memory back while it works."""
        if self._colocated and self.pool.awake:
            await self.pool.sleep()

    async def publish(self, version: int, teacher: bool = False, slot: int = 0) -> dict[str, float]:
        """Give the engines the policy's weights or the teacher's, and their memory.

        That of the cache comes when the transfer needs none.  The teacher's version is the policy's with a minus sign.
        slot: of an adapter that is loaded.
        """
        version = -version if teacher else version
        self._served = version, teacher
        if self._colocated:
            await self.pool.wake_up("weights")
        published = await self.learner.publish(self.pool.handles, version, teacher, slot)
        if self._colocated:
            await self.pool.wake_up("kv_cache")
        await self.pool.confirm(version)
        return published

    async def give(self, engine: Any) -> None:
        """The same for a fresh engine; waits while the learner is in the middle of a step, or is restarted itself."""
        while True:
            async with self.lock:
                with suppress(PartFailed):
                    await self.learner.publish([engine], *self._served)
                    return
            await asyncio.sleep(self._retry_s)

    async def teach(self, rank: Any) -> None:
        """Give a fresh rank of the teacher the weights of the others; waits while the learner is restarted itself.

        It needs no lock: what is asked of the learner's ranks meanwhile, comes before or after it on all of them.
        """
        while True:
            if self.learner.ranks:
                try:
                    return await self.learner.teach([rank])
                except PartFailed as failure:
                    if failure.part not in [part.name for part in self.learner.parts]:
                        raise
            await asyncio.sleep(self._retry_s)
