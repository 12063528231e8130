"""How GRPO and SDPO route responses into streams."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from tests.helpers.prompts import builder
from tests.helpers.tasks import UNGRADED, group, with_outcome


def algorithm(name: str, *overrides: str):
    return build_algorithm(load_recipe(find_recipe("livecodebench", name), "cpu", overrides))


def assign(algo, contexts, *groups):
    return algo.assign(list(groups), contexts, np.random.default_rng(0))


def test_grpo_advantages_sum_to_zero_within_a_group(tokenizer):
    [samples] = assign(algorithm("grpo"), builder(tokenizer), group([True, False, False, False]))
    assert [s.advantages[0] for s in samples] == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert all(s.teacher is None and len(s.advantages) == len(s.response_ids) for s in samples)


def test_grpo_divides_by_the_deviation_when_asked(tokenizer):
    [samples] = assign(
        algorithm("grpo", "policy_gradient.normalize_by_std=true"), builder(tokenizer), group([True, False])
    )
    assert samples[0].advantages[0] == pytest.approx(0.5 / (np.sqrt(0.5) + 1e-6), rel=1e-6)


def test_uniform_groups_can_leave_the_stream(tokenizer):
    algo = algorithm("grpo", "policy_gradient.drop_uniform_groups=true")
    uniform, mixed = assign(algo, builder(tokenizer), group([False, False]), group([True, False]))
    assert all(s.advantages is None for s in uniform) and all(s.advantages is not None for s in mixed)


def test_a_response_that_was_not_judged_has_no_advantage(tokenizer):
    g = with_outcome(group([True, False, False]), 1, UNGRADED)
    [samples] = assign(algorithm("grpo"), builder(tokenizer), g)
    assert samples[1].advantages is None
    assert [samples[i].advantages[0] for i in (0, 2)] == pytest.approx([0.5, -0.5])


def test_sdpo_teaches_every_response_that_has_a_context(tokenizer):
    contexts = builder(tokenizer)
    [samples] = assign(algorithm("sdpo"), contexts, group([True, False, False]))
    assert [s.teacher is not None for s in samples] == [False, True, True]
    assert all(s.advantages is None for s in samples)
    text = tokenizer.decode(samples[1].teacher.prompt_ids)
    assert "answer 0" in text and "answer 1" not in text  # the student's own attempt is not in the prompt


def test_the_mix_feeds_both_streams_with_one_normaliser(tokenizer):
    algo = algorithm("sdpo", "algorithm.mix=0.9")
    [samples] = assign(algo, builder(tokenizer), group([True, False]))
    assert all(s.advantages is not None for s in samples) and samples[1].teacher is not None
    plan = algo.plan
    assert plan.shared_normalizer
    assert (plan.policy_gradient.coefficient, plan.distillation.coefficient) == pytest.approx((0.9, 0.1))
