"""One Ray, one vLLM engine and two learner processes for all tests of this folder; each run begins them anew."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from sdpo.algorithms import build_algorithm
from sdpo.learner.group import Learner
from sdpo.learner.rank import for_a_rank
from sdpo.rollout.pool import EnginePool
from sdpo.training.placement import engine_options, plan_placement
from tests.helpers.training import TURNS, make_recipe


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def workers():
    """(pool, learner) as `sdpo.training.workers` starts them."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    recipe = make_recipe("sdpo", *TURNS)  # whose context is the longest
    placement = plan_placement(recipe, ray.cluster_resources()["CPU"], 0)
    learner = Learner(recipe, build_algorithm(recipe).plan, placement.learner)
    pool = EnginePool(engine_options(recipe), 1, cpus_per_engine=placement.engine_cpus, gpus_per_engine=0)
    await asyncio.gather(pool.start(), learner.start())
    yield pool, learner
    await pool.shutdown()
    learner.shutdown()
    ray.shutdown()


@pytest.fixture
def learner_for(workers):
    """The two learner processes, begun anew with another recipe and its algorithm."""
    learner = workers[1]

    async def begin(recipe, algorithm=None):
        plan = (algorithm or build_algorithm(recipe)).plan
        learner.recipe, learner.plan = recipe, plan
        given = for_a_rank(recipe, plan)

        def restart(self, address):
            self.worker.recipe, self.worker.plan = given
            self.worker.start(address)

        address = await learner.ranks[0].address.remote()
        await asyncio.gather(*(rank.__ray_call__.remote(restart, address) for rank in learner.ranks))
        return learner

    return begin
