"""What a model drops at random in training mode is there in every pass of the learner."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.learner.tiny import VOCABULARY, dealt, loss_and_gradient, named_weights, recipe, samples

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 256, "vocab_size": VOCABULARY,
}  # fmt: skip
# Dropout as modules, as functions that read an attribute, of attention; noise of a router.
MODELS = {
    "qwen3": {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "attention_dropout": 0.5},
    "gpt2": {
        "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": VOCABULARY, "resid_pdrop": 0.3,
        "embd_pdrop": 0.3, "attn_pdrop": 0.3, "bos_token_id": 0, "eos_token_id": 0,
    },
    "gpt_neox": {**SIZES, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "mixtral": {**SIZES, "num_key_value_heads": 2, "num_local_experts": 4, "router_jitter_noise": 0.5,
                "attention_dropout": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(request.param, initializer_range=0.3, **MODELS[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_two_passes_are_equal_and_a_teacher_behind_the_same_prompt_agrees(folder, start, checkpointing):
    settings = recipe(folder, "sdpo", "teacher.rate=0.5", "reference={coefficient: 0.1}", "learner.lr=1e-3",
                      f"learner.gradient_checkpointing={checkpointing}")  # fmt: skip
    worker = start(settings)
    worker.engine.train()  # nobody turns it on again
    [rows] = dealt(settings, samples(6, same_context=True, reference=True))
    loss, gradient = loss_and_gradient(worker, rows)
    assert abs(loss) < 1e-6
    assert max(float(g.abs().max()) for g in gradient.values()) < 1e-5
    assert (worker.passes.log_probs(rows)[0][0] == worker.passes.log_probs(rows)[0][0]).all()

    other = dealt(settings, samples(6, reference=True))[0]
    loss, gradient = loss_and_gradient(worker, other)
    again, same = loss_and_gradient(worker, other)
    assert loss == again != 0
    assert all(torch.equal(g, same[name]) for name, g in gradient.items())
    worker.update(other)
    worker.finish_batch()
    assert not any(m.training for m in worker.teacher.average.policy.modules())


def test_layers_are_computed_anew_although_nothing_is_in_training_mode(model, start):
    """Each layer runs twice, and a pass without gradient runs it once."""
    worker = start(recipe(model, "grpo", "learner.gradient_checkpointing=true"))
    [rows] = dealt(worker.recipe, samples(4))
    layer = worker.student.model.base_model.layers[0]
    modes = []
    layer.mlp.register_forward_pre_hook(lambda module, _: modes.append((module.training, layer.training)))
    loss_and_gradient(worker, rows)
    assert modes == [(False, False)] * 2
    worker.passes.log_probs(rows)
    assert modes == [(False, False)] * 3


def test_layers_are_computed_anew_where_zero_3_shards_them(model, start):
    weights = []
    for checkpointing in ("false", "true"):
        settings = recipe(model, "grpo", "learner.zero_stage=3", f"learner.gradient_checkpointing={checkpointing}")
        worker = start(settings)
        for _ in range(2):
            worker.update(dealt(settings, samples(6))[0])
        weights.append(named_weights(worker))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-6)
