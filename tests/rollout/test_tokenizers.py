"""What a real engine makes of a tokenizer with fewer tokens than the model has entries, and of several end tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.rollout.pool import EnginePool
from sdpo.rollout.requests import Sampling
from tests.helpers.engine import config_for
from tests.helpers.tiny_model import EOS, make_tiny_model

TOKENS, ENDS, PROMPT = 100, [EOS, 7, 9], [5, 6, 8]


@pytest.mark.slow
async def test_padding_is_never_sampled_and_every_end_token_ends_a_response(cluster, tmp_path):
    folder = make_tiny_model(tmp_path / "model", tokens=TOKENS, scale=1.0)  # 28 entries are padding
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS}))
    tokenizer = folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({k: v for k, v in json.loads(tokenizer.read_text()).items() if k != "pad_token"}))
    pool = EnginePool(config_for(folder), engines=1)
    await pool.start(lambda line: None)
    try:
        turns = await pool.generate_group(PROMPT, 16, Sampling(max_tokens=60), seed=0)
    finally:
        await pool.shutdown()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ended = set()
    for turn in turns:
        assert max(turn.response_ids) < TOKENS and not set(ENDS) & set(turn.response_ids[:-1])
        if turn.finish_reason == "stop":
            ended.add(turn.response_ids[-1])
        with torch.no_grad():
            ids = torch.tensor([[*PROMPT, *turn.response_ids]])
            rows = model(ids).logits[0, len(PROMPT) - 1 : -1, :TOKENS].log_softmax(-1)
        wanted = rows.gather(1, torch.tensor(turn.response_ids)[:, None])[:, 0].numpy()
        np.testing.assert_allclose(turn.sampler_log_probs, wanted, rtol=0, atol=1e-4)
    assert ended == set(ENDS)
