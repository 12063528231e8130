"""Rewards, log-probs and metrics that are not finite: left out and counted, never averaged, never the best."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdpo.algorithms import build_algorithm
from sdpo.config.model_weights import check_weights
from sdpo.envs.rewards import sound
from sdpo.errors import UserError
from sdpo.evaluation import count
from sdpo.training.batch_metrics import batch_metrics, sound_samples, ungraded_warning
from sdpo.types import Outcome, Sample
from tests.core.test_generation import TASK, Greeting, generation, recipe_of, trained_on
from tests.helpers.policy import ScriptedPolicy

BAD = [math.nan, math.inf, -math.inf]


class SpoiltPolicy(ScriptedPolicy):
    """Its engine has no finite log-prob for one token of response 1."""

    value = math.nan

    async def _respond(self, prompt_ids, index, sampling, engine):
        turn = await super()._respond(prompt_ids, index, sampling, engine)
        bad = index == 1 or self.value is None
        spoilt = np.append(turn.sampler_log_probs[:-1], np.float32(self.value or math.nan))
        return replace(turn, sampler_log_probs=spoilt) if bad else turn


def spoilt(algorithm: str, tokenizer, value: float | None, *overrides: str):
    made = generation(recipe_of(algorithm, *overrides), tokenizer)
    made.pool = SpoiltPolicy(tokenizer, made.pool.answer)
    made.pool.value = value
    return made


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("algorithm", ["sdpo", "grpo", "srpo"])
async def test_a_response_without_finite_log_probs_is_worth_nothing_trains_nothing_and_is_counted(
    tokenizer, algorithm, value
):
    made = spoilt(algorithm, tokenizer, value)
    group = await trained_on(made)
    assert group.graded.tolist() == [True, False, False, True] and group.rollouts[1].last.broken
    assert [text for text, _ in made.environment.graded] == ["hello", "broken", "hello you"]
    [samples] = build_algorithm(made.recipe).assign([group], made.contexts, np.random.default_rng(0))
    assert (samples[1].advantages, samples[1].teacher, samples[1].reference_weight) == (None, None, None)
    if algorithm == "grpo":  # nor is it part of its group's mean
        assert [float(samples[i].advantages[0]) for i in (0, 3)] == [0.25, -0.25]
    [kept], warning = sound_samples([group], [samples], 1)
    assert len(kept) == 3 and all(np.isfinite(s.sampler_log_probs).all() for s in kept)
    assert warning.startswith("warning: 1 of 4 responses have log-probs that are not finite")
    metrics = batch_metrics([group], [samples], version=1)
    assert metrics["response/not_finite"] == 1 and metrics["train/pass_rate"] == 0.5
    assert ungraded_warning([group]) == (
        "warning: 1 of 3 responses could not be graded and get no reward: the judge is ill"
    )


async def test_an_algorithm_without_rewards_leaves_them_out_too(tokenizer):
    made = spoilt("sdpo", tokenizer, math.nan)
    group = await trained_on(made, graded=False)
    assert [r.outcome is None for r in group.rollouts] == [True, False, True, True]
    assert "train/pass_rate" not in batch_metrics([group], [[Sample((1,), (2,), np.zeros(1))] * 4], version=1)
    assert group.rollouts[1].last.ungradable


async def test_a_batch_of_which_nothing_is_left_is_an_error_and_no_empty_update(tokenizer):
    made = spoilt("grpo", tokenizer, None)
    groups = [await trained_on(made)]
    samples = build_algorithm(made.recipe).assign(groups, made.contexts, np.random.default_rng(0))
    with pytest.raises(UserError, match="4 of 4 responses have log-probs that are not finite.*nothing is left"):
        sound_samples(groups, samples, 1)
    metrics = batch_metrics(groups, samples, version=1)
    assert "train/pass_rate" not in metrics and metrics["response/not_finite"] == 4
    with pytest.raises(UserError, match="could be graded .the engine's log-probs are not finite"):
        count([await made.evaluation_group(TASK, 4)])


async def test_an_evaluation_leaves_them_out_and_says_how_many(tokenizer):
    made = spoilt("grpo", tokenizer, math.nan)
    result = count([await made.evaluation_group(TASK, 4)])
    assert (result.problems[0].n, result.problems[0].c, result.unjudged) == (2, 1, 2)


async def test_the_responses_of_a_dataset_have_no_log_probs_and_are_kept(tokenizer):
    turn = replace((await trained_on(generation(recipe_of("grpo"), tokenizer))).rollouts[0].last, versions=())
    assert not replace(turn, sampler_log_probs=np.full(5, np.nan, np.float32)).broken


@pytest.mark.parametrize("reward", [*BAD, 2e9, np.float32("nan"), torch.tensor(math.inf), "1", [1.0]])
async def test_a_reward_that_is_no_number_is_none_from_any_environment(tokenizer, reward):
    class Nonsense(Greeting):
        async def grade(self, task, turn, purpose):
            return Outcome(reward, True, label="right") if turn.text == "hello" else Outcome(0.0)

    made = generation(recipe_of("grpo"), tokenizer)
    made.environment = Nonsense(made.recipe)
    group = await trained_on(made)
    assert group.graded.tolist() == [False, True, True, True] and not group.rollouts[0].solved
    assert "its reward is" in ungraded_warning([group])


def test_a_good_outcome_stays_what_it_is():
    for reward in (None, 0, 1.0, -1e9, np.float32(0.5), True):
        outcome = Outcome(reward, label="x")
        assert sound(outcome) is outcome


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_a_model_folder_with_one_bad_value_is_refused_by_file_and_tensor(tmp_path, dtype):
    tensors = {"a.weight": torch.ones(4, 4).to(dtype), "b.ids": torch.arange(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    check_weights(str(tmp_path))
    tensors["c.weight"] = torch.ones(4, 4).index_fill(0, torch.tensor([2]), math.nan).to(dtype)
    save_file(tensors, tmp_path / "model-00002.safetensors")
    with pytest.raises(UserError, match=r"c\.weight, 4 of 16 values .*model-00002\.safetensors"):
        check_weights(str(tmp_path))
    (tmp_path / "model-00002.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match=r"model-00002\.safetensors cannot be read"):
        check_weights(str(tmp_path))
    check_weights("some/name-of-the-hub")


def test_weights_in_the_older_format_are_checked_too(tmp_path):
    torch.save({"a": torch.tensor([1.0, math.inf])}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="of the tensor a, 1 of 2"):
        check_weights(str(tmp_path))


def test_eval_refuses_such_a_policy_before_anything_is_started(tmp_path):
    from types import SimpleNamespace

    from sdpo.cli import evaluate
    from sdpo.config.paths import BUNDLED

    policy = tmp_path / "policy"
    policy.mkdir()
    for file in (BUNDLED / "policies" / "minicode").iterdir():
        (policy / file.name).write_bytes(file.read_bytes())
    data = bytearray((policy / "model.safetensors").read_bytes())
    data[-4:] = b"\xff\xff\xff\x7f"
    (policy / "model.safetensors").write_bytes(data)
    options = SimpleNamespace(
        policy=str(policy), recipe="livecodebench", profile="cpu", overrides=[], out=str(tmp_path)
    )
    with pytest.raises(UserError, match="values are NaN or infinite"):
        evaluate.run(options)
