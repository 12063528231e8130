"""Architectures in a real engine: what is published of a learner's model arrives, whatever the engine makes of it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.errors import UserError
from sdpo.learner import export, model_check
from sdpo.rollout.pool import EnginePool
from sdpo.training import engine_check
from sdpo.weights.publisher import Publisher
from tests.helpers.engine import config_for
from tests.helpers.tiny_model import make_tiny_model
from tests.learner.families import family

LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "head_dim": 32, "max_position_embeddings": 1024}
MIXTURE = LAYERS | {"moe_intermediate_size": 64, "intermediate_size": 128}
CHANGES = {
    "qwen3_moe": MIXTURE,  # experts that a CPU engine repacks
    "glm4_moe": MIXTURE  # … with a correction bias, which is a persistent buffer
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "granite": {"hidden_size": 128, "num_key_value_heads": 2, "max_position_embeddings": 1024},  # scaled logits
    "gemma2": LAYERS | {"query_pre_attn_scalar": 32},  # soft-capped scores and logits
    "falcon_h1": LAYERS  # layers that keep a state, beside attention
    | {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
async def test_a_published_model_gives_the_learners_log_probs(kind, cluster, tmp_path):
    folder = make_tiny_model(tmp_path / "model")  # for its tokenizer
    torch.manual_seed(0)
    form = {"dtype": torch.float32, "attn_implementation": "eager"}  # sdpa leaves out what caps scores
    model = AutoModelForCausalLM.from_config(family(kind, **CHANGES[kind]), **form).eval()
    with torch.no_grad():
        model_check._randomise(model)
    model.save_pretrained(folder)
    pool, publisher = EnginePool(config_for(folder), engines=1), Publisher("shared_memory", bucket_bytes=2**18)
    await pool.start(lambda line: None)
    try:
        prompt, response = model_check.probe(128)
        for version in (1, 2, 3):  # the weights that the engine has, then others
            await asyncio.to_thread(publisher.publish, export.checkpoint_tensors(model), pool.handles, version)
            with torch.no_grad():
                asked = [np.array(prompt)], [np.array(response)]
                ours = model_check.plain_log_probs(model, asked).numpy()
            gap = np.abs(await pool.score(prompt, response) - ours)
            engine_check.check_gap(kind, "float32", 0, gap)
            with torch.no_grad():
                model_check._randomise(model)
    finally:
        publisher.close()
        await pool.shutdown()


def test_an_engine_that_is_off_is_refused_with_both_numbers():
    engine_check.check_gap("qwen3", "float32", 0, np.full(24, 5e-4))
    engine_check.check_gap("qwen3", "bfloat16", 0, np.array([0.9] + [0.05] * 23))  # one router's choice
    with pytest.raises(UserError, match=r"by up to 4.7 nats, where 0.001 is allowed"):
        engine_check.check_gap("qwen3_moe", "float32", 1, np.array([1e-4, 4.7]))
    with pytest.raises(UserError, match=r"on average by 0.3 nats, where 0.25 is allowed"):
        engine_check.check_gap("qwen3_moe", "bfloat16", 0, np.full(24, 0.3))
    with pytest.raises(UserError, match="nan"):
        engine_check.check_gap("qwen3", "bfloat16", 0, np.array([np.nan, 0.0]))
