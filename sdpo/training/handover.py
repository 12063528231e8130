"""From the learner to the engines and back: weights, and the GPUs that they share."""

from __future__ import annotations

from sdpo.learner.group import Learner
from sdpo.rollout.pool import EnginePool


class Handover:
    """`colocated`: engine i shares the GPU of rank i."""

    def __init__(self, pool: EnginePool, learner: Learner, colocated: bool) -> None:
        self.pool, self.learner, self.colocated = pool, learner, colocated

    async def free_gpus(self) -> None:
        """Engines that share their GPUs with the learner give their memory back while it works."""
        if self.colocated and self.pool.awake:
            await self.pool.sleep()

    async def publish(self, version: int) -> dict[str, float]:
        """Give the engines the learner's weights, and their memory: that of the cache when the transfer needs none."""
        if self.colocated:
            await self.pool.wake_up("weights")
        published = await self.learner.publish(self.pool.handles, version)
        if self.colocated:
            await self.pool.wake_up("kv_cache")
        await self.pool.confirm(version)
        return published
