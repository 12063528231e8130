"""How routers share out tokens: counted as they choose, in the passes that learn alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.learner import model_check
from sdpo.learner.routing import Routing
from sdpo.learner.sums import Sums, load_statistics
from tests.learner.families import family
from tests.learner.tiny import VOCABULARY, dealt, recipe, samples

LIVE = ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null")  # the student's passes, not to be counted


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "mixtral", "deepseek_v3", "jamba", "qwen3_next"])
def test_counts_are_the_choices_of_the_routers(kind):
    torch.manual_seed(0)
    config = family(kind)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    routing, ids = Routing(model), torch.randint(3, 128, (1, 50))
    with torch.no_grad():
        model_check._randomise(model)
        model(input_ids=ids)
        assert routing.take() == {}
        with routing.counting():
            logits = model(input_ids=ids, output_router_logits=True).router_logits
    counts = routing.take()
    assert len(counts) == len(logits) > 0 and routing.take() == {}
    corrections = [b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")]
    for (name, counted), each, added in zip(counts.items(), logits, corrections or [0.0] * len(logits), strict=True):
        chosen = (each.reshape(50, -1).double().sigmoid() + added).topk(config.num_experts_per_tok).indices
        assert counted.tolist() == torch.bincount(chosen.flatten(), minlength=len(counted)).tolist(), name


@pytest.mark.parametrize("recomputed", ["false", "true"])
def test_a_learner_counts_the_tokens_that_it_learns_from(start, tmp_path, recomputed):
    config = family("qwen3_moe", vocab_size=VOCABULARY)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    settings = recipe(tmp_path, "sdpo", *LIVE, f"learner.gradient_checkpointing={recomputed}")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8), tokens=40)
    assert len(micro_batches) > 1
    tokens = sum(worker.passes._pack(rows).input_ids.numel() for rows in micro_batches)
    worker.passes.log_probs(micro_batches)
    sums, _, _ = worker.update(micro_batches)
    assert len(sums.routed) == config.num_hidden_layers
    assert {int(counts.sum()) for counts in sums.routed.values()} == {tokens * config.num_experts_per_tok}
    metrics = pickle.loads(pickle.dumps(sums)).means()
    assert 1 <= metrics["routing/max_load"] <= 4 and 0 < metrics["routing/entropy"] <= 1
    assert 0 <= metrics["routing/dead_experts"] < 0.5


def test_statistics_of_a_load():
    even, alone = np.full(4, 5), np.array([7, 0, 0, 0])
    assert load_statistics({"a": even}) == pytest.approx(
        {"routing/max_load": 1, "routing/entropy": 1, "routing/dead_experts": 0}
    )
    assert load_statistics({"a": even, "b": alone}) == pytest.approx(
        {"routing/max_load": 4, "routing/entropy": 0.5, "routing/dead_experts": 3 / 8}
    )
    assert load_statistics({}) == {}
    both = Sums(routed={"a": even})
    both.add(Sums(routed={"a": even, "b": alone}))
    assert both.routed["a"].tolist() == [10] * 4 and both.routed["b"].tolist() == [7, 0, 0, 0]
