"""What an engine returns: tokens, log-probs, reasons, seeds, and errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpo.errors import UserError
from sdpo.rollout import places
from sdpo.rollout.config import environment
from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from tests.helpers.engine import CONTEXT, config_for
from tests.helpers.tiny_model import EOS, make_tiny_model

PROMPT = [5, 6, 7, 8]


async def test_group_of_responses(pool, policy):
    rollouts = await pool.generate_group(PROMPT, 8, Sampling(max_tokens=300), seed=1)
    assert len(rollouts) == 8
    assert len({r.response_ids for r in rollouts}) == 8
    for rollout in rollouts:
        assert rollout.sampler_log_probs.dtype == np.float32
        assert rollout.sampler_log_probs.shape == (len(rollout.response_ids),)
        assert rollout.policy_version == rollout.final_version == policy.version
        assert (rollout.versions[0].start, rollout.versions[-1].end) == (0, len(rollout.response_ids))
        if rollout.finish_reason == "stop":
            assert rollout.response_ids[-1] == EOS
        else:
            assert rollout.finish_reason == "length" and len(rollout.response_ids) == 300
        assert EOS not in rollout.response_ids[:-1]
    assert {r.finish_reason for r in rollouts} == {"stop", "length"}


async def test_log_probs_are_those_of_the_model(pool, policy):
    for rollout in await pool.generate_group(PROMPT, 8, Sampling(max_tokens=100), seed=2):
        expected = policy.log_probs(PROMPT, rollout.response_ids)
        np.testing.assert_allclose(rollout.sampler_log_probs, expected, rtol=0, atol=1e-4)
        scored = await pool.score(PROMPT, rollout.response_ids)
        np.testing.assert_allclose(scored, expected, rtol=0, atol=1e-4)


async def test_log_probs_include_temperature_and_truncation(pool, policy):
    """Those of softmax(logits / T), cut to the smallest set of tokens that holds top_p of it, and renormalised."""
    sampling = Sampling(max_tokens=60, temperature=0.7, top_p=0.8)
    for rollout in await pool.generate_group(PROMPT, 4, sampling, seed=3):
        probs = (policy.logits(PROMPT, rollout.response_ids).double() / 0.7).softmax(-1)
        ordered, index = probs.sort(-1, descending=True)
        kept = ordered.cumsum(-1) - ordered < 0.8
        cut = torch.zeros_like(probs).scatter(-1, index, ordered * kept)
        cut /= cut.sum(-1, keepdim=True)
        expected = cut.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0].log()
        np.testing.assert_allclose(rollout.sampler_log_probs, expected.numpy(), rtol=0, atol=1e-4)


async def test_greedy_takes_the_most_likely_token(pool, policy):
    (rollout,) = await pool.generate_group(PROMPT, 1, Sampling.argmax(40), seed=0)
    rows = policy.logits(PROMPT, rollout.response_ids)
    assert rows.argmax(-1).tolist() == list(rollout.response_ids)
    expected = policy.log_probs(PROMPT, rollout.response_ids)
    np.testing.assert_allclose(rollout.sampler_log_probs, expected, rtol=0, atol=1e-4)


async def test_seeds_reproduce_whatever_else_runs(pool):
    sampling = Sampling(max_tokens=64)
    alone = await pool.generate_group(PROMPT, 4, sampling, seed=11)
    others = [asyncio.ensure_future(pool.generate_group([9 + i, 4], 4, sampling, seed=100 + i)) for i in range(6)]
    among = await pool.generate_group(PROMPT, 6, sampling, seed=11)
    await asyncio.gather(*others)
    assert [r.response_ids for r in alone] == [r.response_ids for r in among[:4]]
    other_seed = await pool.generate_group(PROMPT, 4, sampling, seed=12)
    assert not {r.response_ids for r in alone} & {r.response_ids for r in other_seed}


async def test_a_response_ends_with_the_context(pool):
    prompt = [2 + i % 100 for i in range(CONTEXT - 3)]
    (rollout,) = await pool.generate_group(prompt, 1, Sampling(max_tokens=50), seed=0)
    assert rollout.finish_reason in ("length", "stop")
    assert len(rollout.response_ids) <= 3


async def test_a_prompt_longer_than_the_context_is_refused(pool):
    with pytest.raises(
        UserError, match=rf"{CONTEXT} tokens leaves no room.*context of {CONTEXT} tokens.*max_model_len"
    ):
        await pool.generate_group([5] * CONTEXT, 2, Sampling(max_tokens=5), seed=0)
    with pytest.raises(UserError, match="empty"):
        await pool.generate_group([], 2, Sampling(max_tokens=5), seed=0)


async def test_a_token_outside_of_the_vocabulary_is_refused(pool):
    with pytest.raises(UserError, match="vLLM refuses the request.*vocab"):
        await pool.generate_group([5, 100_000], 2, Sampling(max_tokens=5), seed=0)


async def test_a_cancelled_request_leaves_the_engine(pool):
    task = asyncio.ensure_future(pool.generate_group(PROMPT, 16, Sampling(max_tokens=400), seed=5))
    while (await pool.metrics())["running"] < 8:  # on a busy machine some end before others begin
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        while (await pool.metrics())["running"]:
            await asyncio.sleep(0.01)


async def test_metrics_count(pool):
    before = await pool.metrics()
    rollouts = await pool.generate_group(PROMPT, 4, Sampling(max_tokens=20), seed=6)
    after = await pool.metrics()
    difference = {
        key: after[key] - before[key] for key in ("requests", "prompt_tokens", "response_tokens", "truncated")
    }
    assert difference == {
        "requests": 4,
        "prompt_tokens": 4 * len(PROMPT),
        "response_tokens": sum(len(r.response_ids) for r in rollouts),
        "truncated": sum(r.finish_reason == "length" for r in rollouts),
    }
    assert after["busy_seconds"] > before["busy_seconds"]
    assert after["tokens_per_second"] > 0


async def test_what_the_engine_says_of_itself(pool, model_path):
    (info,) = pool.infos
    assert (info.dtype, info.max_model_len, info.vocab_size) == ("float32", CONTEXT, 128)
    assert set(info.startup_seconds) == {"importing vLLM", "loading the model", "warming up"}


async def test_a_model_that_is_not_there(cluster, tmp_path):
    pool = EnginePool(config_for(tmp_path / "nowhere"), engines=1)
    with pytest.raises(UserError, match="There is no model folder .*nowhere"):
        await pool.start()
    assert pool.handles == []


async def test_engines_that_no_machine_can_hold(cluster, model_path):
    pool = EnginePool(config_for(model_path), engines=3, cpus_per_engine=1)
    with pytest.raises(UserError, match=r"3 rollout engine\(s\) with 1 CPU\(s\) each do not fit.*has 2"):
        await pool.start()


@pytest.mark.slow
async def test_an_engine_that_dies_while_it_starts_quotes_the_line_that_killed_it(cluster, tmp_path, monkeypatch):
    """With vLLM's core in a process of its own, as on GPUs, whose exception stands in the log alone."""
    weights = make_tiny_model(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    apart = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    monkeypatch.setattr(places, "environment", lambda config: environment(config) | apart)
    pool = EnginePool(config_for(weights.parent), engines=1)
    with pytest.raises(UserError) as caught:
        await pool.start()
    said = str(caught.value)
    _, told = said.split("did not start (loading the model): ")
    line, place = told.split(". Its log is ")
    assert "SafetensorError: " in line and "root cause" not in said, said
    assert line in Path(place.split(". If memory")[0]).read_text()
