"""A learner's adapter in real engines: merged into the weights that they get, or loaded beside the base."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from sdpo.errors import UserError
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from sdpo.training.placement import engine_options
from sdpo.weights.publisher import publish_adapter
from tests.helpers.engine import config_for
from tests.learner.tiny import recipe

pytestmark = pytest.mark.slow
LORA = ("model.adapter={rank: 4, alpha: 8}", "learner.zero_stage=0")
LOADED = (*LORA, "rollout.adapter=loaded")
POLICIES = 3
PROMPT = [3 + i * i % 120 for i in range(300)]  # longer than two blocks of the prefix cache


@pytest.fixture(scope="module")
def start(cluster, model_path):
    """A learner of one rank in this process."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    def make(*overrides: str):
        settings = recipe(model_path, "sdpo", *overrides)
        worker = LearnerWorker(settings, build_algorithm(settings).plan, 0)
        worker.start(worker.address())
        return worker

    yield make
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def loading(cluster, model_path) -> Iterator[EnginePool]:
    """An engine that loads adapters."""
    slots = engine_options(recipe(model_path, "sdpo", *LOADED), policies=POLICIES).adapters
    pool = EnginePool(dataclasses.replace(config_for(model_path), adapters=slots), engines=1)
    asyncio.run(pool.start())
    yield pool
    asyncio.run(pool.shutdown())


def move(worker, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in worker.student.trained():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def log_probs(worker, response) -> np.ndarray:
    from sdpo.learner.rows import unweighted_row

    return worker.passes.log_probs([[unweighted_row(PROMPT, response)]])[0][0]


@pytest.fixture(params=["merged", "loaded"])
def way(request) -> Iterator[tuple[str, EnginePool]]:
    """What engines get of an adapter, and an engine that takes it so."""
    if request.param == "loaded":
        yield "loaded", request.getfixturevalue("loading")
        return
    policy = request.getfixturevalue("policy")
    yield "merged", policy.pool
    asyncio.run(policy.publish())  # what other tests expect


async def test_engines_give_the_learners_log_probs(way, start):
    what, pool = way
    worker = start(*(LOADED if what == "loaded" else LORA))
    before = None
    for version in (101, 102):
        move(worker, seed=version)
        sent = await asyncio.to_thread(worker.publish, pool.handles, version)
        adapter = sum(p.numel() * 4 for _, p in worker.student.trained())
        assert (sent["weights/bytes"] < 1.5 * adapter) == (what == "loaded")
        assert await pool.versions() == [version]
        for rollout in await pool.generate_group(PROMPT, 4, Sampling(max_tokens=40), seed=1):
            assert rollout.policy_version == rollout.final_version == version
            wanted = log_probs(worker, rollout.response_ids)
            np.testing.assert_allclose(rollout.sampler_log_probs, wanted, rtol=0, atol=1e-4)
            found = await pool.score(PROMPT, rollout.response_ids)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        if before is not None:
            assert np.abs(await pool.score(PROMPT, before.response_ids) - before.sampler_log_probs).max() > 0.05
        before = rollout


async def test_a_response_keeps_the_adapter_that_it_began_with(loading, start):
    worker = start(*LOADED)
    move(worker, seed=1)
    await asyncio.to_thread(worker.publish, loading.handles, 7)
    tasks = [asyncio.ensure_future(loading.generate_group(PROMPT, 1, Sampling(max_tokens=200), i)) for i in range(96)]
    while (await loading.metrics())["running"] < 12:  # on a busy machine some end before others begin
        await asyncio.sleep(0.01)
    old = {name: p.clone() for name, p in worker.student.trained()}
    move(worker, seed=2)
    await asyncio.to_thread(worker.publish, loading.handles, 8)
    under_way = (await loading.metrics())["running"]
    (new,) = await loading.generate_group(PROMPT, 1, Sampling(max_tokens=20), seed=9)
    assert under_way > 0 and new.policy_version == 8
    np.testing.assert_allclose(new.sampler_log_probs, log_probs(worker, new.response_ids), rtol=0, atol=1e-4)
    with torch.no_grad():
        for name, parameter in worker.student.trained():
            parameter.copy_(old[name])
    for task in tasks:
        (turn,) = await task
        assert turn.policy_version == turn.final_version == 7
        np.testing.assert_allclose(turn.sampler_log_probs, log_probs(worker, turn.response_ids), rtol=0, atol=1e-4)
    await asyncio.to_thread(worker.publish, loading.handles, 9)
    kept = await loading.handles[0].__ray_call__.remote(
        lambda self: [a.version for a in self._adapters._loaded if not a.slot]
    )
    assert kept == [9]


async def test_adapters_in_slots_of_their_own_answer_at_once_and_each_as_if_alone(loading, start):
    worker, sampling, versions = start(*LOADED), Sampling(max_tokens=60), {slot: 30 + slot for slot in range(POLICIES)}
    kept, alone = {}, {}
    for slot, version in versions.items():
        move(worker, seed=version)
        kept[slot] = {name: p.clone() for name, p in worker.student.trained()}
        await asyncio.to_thread(worker.publish, loading.handles, version, slot=slot)
        alone[slot] = await asyncio.gather(*loading.generate(PROMPT, 4, sampling, 5, slot=slot))
    for again in (False, True):
        if again:  # another one in a slot leaves the others as they are
            move(worker, seed=40)
            versions[1], kept[1] = 40, {name: p.clone() for name, p in worker.student.trained()}
            await asyncio.to_thread(worker.publish, loading.handles, 40, slot=1)
        asked = {slot: loading.generate(PROMPT, 4, sampling, 5, slot=slot) for slot in versions}
        together = {slot: await asyncio.gather(*turns) for slot, turns in asked.items()}
        assert len({tuple(turn.response_ids for turn in turns) for turns in together.values()}) == POLICIES
        for slot, turns in together.items():
            with torch.no_grad():
                for name, parameter in worker.student.trained():
                    parameter.copy_(kept[slot][name])
            for turn, before in zip(turns, alone[slot], strict=True):
                assert turn.policy_version == turn.final_version == versions[slot]
                assert (turn.response_ids == before.response_ids) == (versions[slot] < 40)
                np.testing.assert_allclose(
                    turn.sampler_log_probs, log_probs(worker, turn.response_ids), rtol=0, atol=1e-4
                )
    held = await loading.handles[0].__ray_call__.remote(
        lambda self: [(a.slot, a.version) for a in self._adapters._loaded]
    )
    assert sorted(held) == [(0, 30), (1, 40), (2, 32)]


async def test_an_adapter_that_does_not_fit_is_refused_and_the_old_one_stays(loading, start, tmp_path):
    worker = start(*LOADED)
    move(worker, seed=3)
    await asyncio.to_thread(worker.publish, loading.handles, 20)
    worker.checkpointing.export(str(tmp_path))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for layer, match in (
        ("layers.7.self_attn.q_proj", "no layer for .*layers.7"),
        ("layers.1.self_attn.other", "expected target"),
    ):
        tensors = load(files["adapter_model.safetensors"])
        renamed = {name.replace("layers.1.self_attn.q_proj", layer): tensor for name, tensor in tensors.items()}
        given = files | {"adapter_model.safetensors": save(renamed)}
        with pytest.raises(UserError, match=f"{match}.*Leave rollout.adapter at merged"):
            await asyncio.to_thread(publish_adapter, given, loading.handles, 21)
    assert await loading.versions() == [20]
    (turn,) = await loading.generate_group(PROMPT, 1, Sampling(max_tokens=20), seed=4)
    np.testing.assert_allclose(turn.sampler_log_probs, log_probs(worker, turn.response_ids), rtol=0, atol=1e-4)
