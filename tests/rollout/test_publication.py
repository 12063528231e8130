"""The learner's weights in a running engine: the right ones, all of them, under the right version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sdpo.rollout.requests import EngineError, Sampling
from sdpo.weights.checksum import checksum, combine
from sdpo.weights.errors import WeightTransferError
from sdpo.weights.publisher import Publisher
from sdpo.weights.shared_memory import Block
from tests.helpers.engine import shared_memory_unchanged

# Longer than one block of the key-value cache (128 tokens), so that the prefix cache is really used.
PROMPT = [3 + i * i % 120 for i in range(300)]


async def check(pool, policy, seed: int = 1) -> None:
    """Sampled tokens and their log-probs come from the policy's present weights."""
    for rollout in await pool.generate_group(PROMPT, 4, Sampling(max_tokens=40), seed):
        assert rollout.policy_version == rollout.final_version == policy.version
        expected = policy.log_probs(PROMPT, rollout.response_ids)
        np.testing.assert_allclose(rollout.sampler_log_probs, expected, rtol=0, atol=1e-4)


async def test_engines_take_the_new_weights(pool, policy):
    await check(pool, policy)
    (old,) = await pool.generate_group(PROMPT, 1, Sampling(max_tokens=40), seed=3)
    policy.perturb(seed=1)
    with shared_memory_unchanged():
        report = await policy.publish()
    weights = policy.weights()
    assert report.version == policy.version
    assert report.tensors == len(weights)
    assert report.bytes == sum(w.numel() * w.element_size() for _, w in weights)
    assert report.buckets > 2  # layers are cut apart, which is where buffers could be reused too early
    assert report.checksum == combine({name: checksum(weight) for name, weight in weights})
    assert await pool.versions() == [policy.version]
    await check(pool, policy)
    rescored = await pool.score(PROMPT, old.response_ids)
    np.testing.assert_allclose(rescored, policy.log_probs(PROMPT, old.response_ids), rtol=0, atol=1e-4)
    assert np.abs(rescored - old.sampler_log_probs).max() > 0.05  # these are not the old weights


async def test_the_same_weights_give_the_same_tokens_again(pool, policy):
    sampling = Sampling(max_tokens=40)
    before = await pool.generate_group(PROMPT, 4, sampling, seed=9)
    saved = [w.clone() for _, w in policy.weights()]
    policy.perturb(seed=2)
    await policy.publish()
    between = await pool.generate_group(PROMPT, 4, sampling, seed=9)
    with torch.no_grad():
        for (_, weight), old in zip(policy.weights(), saved, strict=True):
            weight.copy_(old)
    await policy.publish()
    after = await pool.generate_group(PROMPT, 4, sampling, seed=9)
    assert [r.response_ids for r in before] == [r.response_ids for r in after]
    assert [r.response_ids for r in before] != [r.response_ids for r in between]


async def test_weights_change_under_requests_in_flight(pool, policy):
    """Every token carries the log-prob of the weights that its version names, given all tokens before it."""
    prompts = [[3 + i, 40, 50] for i in range(16)]
    old = {name: weight.clone() for name, weight in policy.weights()}
    first = policy.version
    tasks = [
        asyncio.ensure_future(pool.generate_group(prompt, 1, Sampling(max_tokens=250), seed=i))
        for i, prompt in enumerate(prompts)
    ]
    while (await pool.metrics())["running"] < 16:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    policy.perturb(seed=3)
    await policy.publish()
    rollouts = [(await task)[0] for task in tasks]
    new = {name: weight.clone() for name, weight in policy.weights()}
    versions = [{span.version: (span.start, span.end) for span in r.versions} for r in rollouts]
    assert all(set(v) <= {first, policy.version} for v in versions)
    assert sum(len(v) == 2 for v in versions) >= 8
    for state, version in ((old, first), (new, policy.version)):
        with torch.no_grad():
            for name, weight in policy.weights():
                weight.copy_(state[name])
        for prompt, rollout, spans in zip(prompts, rollouts, versions, strict=True):
            if version in spans:
                start, end = spans[version]
                expected = policy.log_probs(prompt, rollout.response_ids)[start:end]
                np.testing.assert_allclose(rollout.sampler_log_probs[start:end], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
async def test_weights_are_cast_to_the_engines_dtype(pool, policy, dtype):
    with torch.no_grad():
        for _, weight in policy.weights():
            weight.copy_(weight.to(dtype))  # what the engine will hold: fp32 values of the learner's dtype
    await policy.publish(weights=[(name, weight.to(dtype)) for name, weight in policy.weights()])
    await check(pool, policy)


async def refused_until_published_again(pool, policy, match, weights=None, fault=contextlib.nullcontext):
    """A failed publication: an error for the learner, errors for requests, and a later publication mends it."""
    waiting = asyncio.ensure_future(pool.generate_group([5, 6], 4, Sampling(max_tokens=400), seed=0))
    while (await pool.metrics())["running"] < 4:
        await asyncio.sleep(0.01)
    with fault(), pytest.raises(WeightTransferError, match=match):
        await policy.publish(weights)
    with pytest.raises(EngineError, match="incomplete weights.*Publish again"):
        await waiting
    with pytest.raises(EngineError, match="incomplete weights"):
        await pool.generate_group(PROMPT, 1, Sampling(max_tokens=4), seed=0)
    policy.perturb(seed=7)
    await policy.publish()
    await check(pool, policy)


async def test_damaged_bytes_are_noticed(pool, policy, monkeypatch):
    """A bit of the shared memory flips after the learner has computed its checksums."""

    @contextlib.contextmanager
    def flipped_bit():
        with monkeypatch.context() as patch:
            write = Block.write

            def damage(block, offset, tensor):
                if tensor.dim() == 1:
                    tensor = tensor.clone()
                    tensor.view(torch.int32)[17] ^= 1 << 9
                write(block, offset, tensor)

            patch.setattr(Block, "write", damage)
            yield

    await refused_until_published_again(pool, policy, r"differ from what was sent: \S*norm\.weight", fault=flipped_bit)


async def test_wrong_checksums_are_noticed(pool, policy, monkeypatch):
    """The learner's list does not agree with what was loaded: here because it was taken from other weights."""

    @contextlib.contextmanager
    def another_list():
        with monkeypatch.context() as patch:
            send_all = Publisher._all

            def tampered(publisher, method, *args):
                if method == "update_weights":
                    name = "model.layers.1.mlp.down_proj.weight"
                    args = ({"checksums": args[0]["checksums"] | {name: 1}},)
                return send_all(publisher, method, *args)

            patch.setattr(Publisher, "_all", tampered)
            yield

    match = r"differ from what was sent: model\.layers\.1\.mlp\.down_proj\.weight"
    await refused_until_published_again(pool, policy, match, fault=another_list)


async def test_a_forgotten_weight_is_noticed(pool, policy):
    weights = [(name, weight) for name, weight in policy.weights() if "layers.1.self_attn.k_norm" not in name]
    match = r"would keep their old values: model\.layers\.1\.self_attn\.k_norm\.weight"
    await refused_until_published_again(pool, policy, match, weights)


async def test_a_weight_that_the_engine_does_not_have(pool, policy):
    weights = [*policy.weights(), ("model.layers.7.input_layernorm.weight", torch.ones(64))]
    await refused_until_published_again(pool, policy, "layers", weights)


async def test_a_learner_that_fails_while_it_gathers(pool, policy):
    def half() -> Iterator[tuple[str, torch.Tensor]]:
        yield from policy.weights()[:12]
        raise OSError("the learner lost a rank")

    with pytest.raises(OSError, match="lost a rank"):
        await policy.publish(half())
    with pytest.raises(EngineError, match="lost a rank"):
        await pool.generate_group(PROMPT, 1, Sampling(max_tokens=4), seed=0)
    await policy.publish()
    await check(pool, policy)


async def test_both_sides_must_use_the_same_way(pool, policy):
    publisher = Publisher("nccl")
    with pytest.raises(WeightTransferError, match="publishes by nccl, an engine listens on shared_memory"):
        await asyncio.to_thread(publisher.publish, iter(policy.weights()), pool.handles, policy.version + 1)
    await check(pool, policy)


async def test_a_learner_that_died_in_an_update(pool, policy):
    """A killed learner cannot abandon its update; the one that takes its place starts anew."""
    (engine,) = pool.handles
    await engine.pause.remote()
    await engine.start_weight_update.remote()
    policy.perturb(seed=8)
    await policy.publish()
    await check(pool, policy)
