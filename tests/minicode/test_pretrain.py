"""The training loop: learns, repeats, and writes a folder that transformers reads."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo.errors import UserError
from studies.pretrain.batches import PROMPT_WEIGHT, collate
from studies.pretrain.command import parse
from studies.pretrain.train import PretrainSettings, train
from studies.pretrain.worlds import CORPORA

SMALL = {"steps": 30, "warmup": 4, "tokenizer_examples": 400, "batch": 16, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    losses: list[float] = []
    train(
        PretrainSettings(**SMALL, processes=2),
        folder,
        lambda step, by_mode: losses.append(sum(by_mode.values()) / len(by_mode)),
    )
    return folder, losses


@pytest.mark.slow
def test_two_processes_train_and_write_a_model_folder(trained):
    folder, losses = trained
    assert len(losses) == 30 and all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3" and model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert json.loads((folder / "pretraining.json").read_text())["step"] == 30
    assert json.loads((folder / "checkpoint" / "pretraining.json").read_text())["step"] == 25
    assert not list(folder.glob(".rendezvous*"))


def test_same_seed_same_weights(tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(PretrainSettings(**SMALL | {"steps": 3}, seed=seed, processes=1), tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.slow
def test_weights_of_a_batch(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    examples = list(CORPORA["minicode"].examples(1, 6))
    batch = collate(examples, tokenizer, list(CORPORA["minicode"].modes))
    for row, example in enumerate(examples):
        answer = batch.ids[row][batch.answer[row]]
        assert tokenizer.decode(answer) == example.response + tokenizer.eos_token
        weight = batch.weight[row]
        assert (weight[batch.answer[row]] == 1).all() and weight[0] == 0
        assert (weight[batch.ids[row] == tokenizer.pad_token_id] == 0).all()
        prompt = ~batch.answer[row] & (batch.ids[row] != tokenizer.pad_token_id)
        assert torch.allclose(weight[prompt][1:], torch.tensor(PROMPT_WEIGHT))


def test_schedule():
    settings = PretrainSettings(steps=1000, warmup=50)
    assert settings.rate(0) == pytest.approx(2e-3 / 50)
    assert settings.rate(49) == settings.rate(599) == 2e-3
    assert settings.rate(800) == pytest.approx(2e-3 * (1 - 0.95 * 0.5))
    assert settings.rate(999) == pytest.approx(2e-3 * 0.05, rel=0.1)


@pytest.mark.parametrize("word", ["stepz=3", "steps", "steps=three", "batch=7", "steps=0"])
def test_wrong_options_are_one_clear_message(word):
    with pytest.raises(UserError):
        parse([word])


def test_options():
    settings, options = parse(["steps=10", "seed=3", "learning_rate=0.001", "out=/tmp/x"])
    assert (settings.steps, settings.seed, settings.learning_rate, options) == (10, 3, 1e-3, {"out": "/tmp/x"})
