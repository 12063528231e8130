"""How the variants of SDPO, GRPO and SFT choose and weigh, and what their recipes refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.algorithms.rlcsd import Additions
from sdpo.algorithms.rlsd import TeacherShaped
from sdpo.algorithms.sc_sdpo import question_weights
from sdpo.algorithms.sdar import Gate
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.streams import DistillationSettings, Ramp
from sdpo.errors import UserError
from sdpo.learner.rank import for_a_rank
from sdpo.learner.rows import loss_weighted_rows, with_advantages
from sdpo.rollout.generation import training_sampling
from sdpo.types import Rollout, ScoredTokens
from tests.helpers.prompts import builder
from tests.helpers.tasks import UNGRADED, group, problem, turn, with_outcome


def load(algorithm: str, *overrides: str, profile: str = "cpu"):
    return load_recipe(find_recipe("livecodebench", algorithm), profile, overrides)


def assign(recipe, contexts, *groups):
    return build_algorithm(recipe).assign(list(groups), contexts, np.random.default_rng(0))


def scored(log_ratio: list[float] | None, advantages: list[float] | None = None) -> ScoredTokens:
    def array(values):
        return None if values is None else np.array(values, np.float32)

    ratio, weight = array(log_ratio), None if log_ratio is None else np.ones(len(log_ratio), np.float32)
    return ScoredTokens(weight, array(advantages), np.zeros(len(log_ratio or advantages)), ratio, ratio)


# --------------------------------------------------------------------------------------------------- question weights


def test_a_question_weighs_most_where_half_of_its_group_succeeds():
    half, third, none, every = group([True, False]), group([True, False, False]), group([False] * 2), group([True] * 2)
    raw = np.array([0.5, np.sqrt(2) / 3])
    wanted = [*(raw / raw.mean()), 0, 0]
    assert question_weights([half, third, none, every], 0.0) == pytest.approx(wanted)
    assert question_weights([none, every], 0.0).tolist() == [0, 0]
    unjudged = with_outcome(group([True, False, False]), 2, UNGRADED)
    assert question_weights([unjudged, third], 0.0) == pytest.approx(wanted[:2])


def test_smoothing_keeps_the_questions_that_nobody_solved():
    raw = np.sqrt([2 / 4 * 2 / 4, 1 / 4 * 3 / 4, 1 / 2 * 1 / 2])
    none = group([False] * 2)
    unjudged = with_outcome(with_outcome(none, 0, UNGRADED), 1, UNGRADED)
    found = question_weights([group([True, False]), none, unjudged], 1.0)
    assert found == pytest.approx([*(raw[:2] / raw[:2].mean()), 0])


def test_what_weighs_nothing_has_no_teacher(tokenizer):
    half, none = group([True, False]), group([False, False])
    contexts = builder(tokenizer, feedback="always")
    first, second = assign(load("sc-sdpo"), contexts, half, none)
    assert [s.teacher is not None for s in (*first, *second)] == [False, True, False, False]
    assert first[1].teacher.weight.tolist() == [1.0, 1.0]
    kept = sum(assign(load("sc-sdpo", "algorithm.smoothing=1"), contexts, half, none), [])
    assert [s.teacher is not None for s in kept] == [False, True, True, True]
    assert kept[1].teacher.weight[0] / kept[2].teacher.weight[0] == pytest.approx(0.5 / np.sqrt(3 / 16))


# ------------------------------------------------------------------------------------------------- advantages, gates


def test_the_teacher_changes_the_size_of_an_advantage_and_never_its_sign():
    hook, ratios = TeacherShaped(1.0, 0.2, False), [0.1, -0.1, 9.0, -9.0, -1e30]
    better, worse, alone, untaught, dropped = hook(
        [scored(ratios, [2.0] * 5), scored(ratios, [-2.0] * 5), scored(ratios, [0.0] * 5), scored(None, [1.0]),
         scored([1.0])]
    )  # fmt: skip
    assert better == pytest.approx([2 * np.exp(0.1), 2 * np.exp(-0.1), 2.4, 1.6, 1.6])
    assert worse == pytest.approx([-2 * np.exp(-0.1), -2 * np.exp(0.1), -1.6, -2.4, -2.4])
    assert alone.tolist() == [0.0] * 5 and untaught is None and dropped is None
    half = TeacherShaped(0.5, 0.2, True)
    up, down = half([scored([9.0], [2.0]), scored([-9.0], [-2.0])])
    assert (up.tolist(), down) == ([2.0], pytest.approx([-2.2]))


def test_its_share_falls_and_then_it_is_not_asked():
    plan = build_algorithm(load("rlsd")).plan
    assert [plan.at(step).advantage_hook.strength for step in (1, 26, 50)] == pytest.approx([0.5, 0.25, 0.01])
    assert plan.at(51).advantage_hook is None and plan.distillation is None
    stays = build_algorithm(load("rlsd", "algorithm.strength_steps=null")).plan
    assert stays.at(500).advantage_hook.strength == 0.5


def test_hooks_stay_with_the_driver():
    for algorithm in ("rlsd", "sdar"):
        recipe = load(algorithm)
        _, plan = for_a_rank(recipe, build_algorithm(recipe).plan)
        assert plan.advantage_hook is None and plan.weight_hook is None


def test_new_advantages_reach_the_rows(tokenizer):
    recipe = load("rlsd", "context.max_reprompt_tokens=2048")
    g = group([True, False], task=problem(solution="print(3)"))
    samples = sum(assign(recipe, builder(tokenizer, demonstration="solution", feedback="never"), g), [])
    rows = loss_weighted_rows(samples, build_algorithm(recipe).plan, 48)
    assert all(row.teacher_prompt_ids is not None and not row.distillation_weight.any() for row in rows)
    changed = with_advantages(rows, [None, np.array([1.5, 2.5])])
    assert changed[0].advantages.tolist() == [0.5, 0.5] and changed[1].advantages.tolist() == [1.5, 2.5]
    assert changed[1].advantages.dtype == np.float32


def test_a_contrast_needs_a_failure_of_a_sibling(tokenizer):
    contexts = builder(tokenizer, demonstration="solution", feedback="never")
    task = problem(solution="print(3)")
    mixed = with_outcome(group([True, False, False, False], task=task), 2, UNGRADED)
    better = replace(mixed.rollouts[1].last.outcome, reward=0.5)
    found = assign(load("cepo"), contexts, with_outcome(mixed, 1, better), group([True, True], task=task))
    texts = [[tokenizer.decode(prompt) for prompt in s.teacher.contrasts] for s in (*found[0][:2], *found[1])]
    assert [len(own) for own in texts] == [1, 1, 0, 0]  # of the fourth, whose reward is the lowest
    assert all("answer 3" in own[0] and "print(3)" not in own[0] for own in texts[:2])
    assert "answer 1" in tokenizer.decode(found[0][3].teacher.contrasts[0])
    assert found[0][2].teacher is None  # nobody could grade it
    own, alone = build_algorithm(load("cepo")).plan.advantage_hook(
        [replace(scored([9.0], [2.0]), contrasts=np.array([[8.9]])), scored([9.0], [2.0])]
    )
    assert own == pytest.approx([1 + np.exp(0.1)]) and alone is None


def test_additions_reach_zero_and_no_further_and_make_two_means():
    hook = Additions(load("rlcsd", "algorithm.largest_addition=1", "algorithm.changed_weight=3").algorithm)
    contrast = np.zeros((2, 4), np.float32)
    found = hook([
        replace(scored([9.0, 0.0, -9.0, 0.0], [0.5] * 4), contrasts=contrast),
        replace(scored([9.0] * 2, [0.0] * 2), contrasts=contrast[:, :2]),
        scored(None, [-1.0] * 2), scored([1.0]),
    ])  # fmt: skip
    same, changed = 8 / 6, 3 * 8 / 2  # of 8 tokens two have an addition
    assert found[0] == pytest.approx([1.5 * changed, 0.5 * same, 0.0, 0.5 * same])
    assert found[1].tolist() == [0.0, 0.0] and found[2] == pytest.approx([-same] * 2) and found[3] is None
    assert hook([scored(None, [1.0, -1.0])])[0].tolist() == [1.0, -1.0]  # none has one: GRPO


def test_the_gate_opens_with_the_teachers_opinion():
    factor, untaught = Gate(5.0)([scored([0.0, 0.2, -0.2, 1e6, -1e6]), scored(None, [1.0])])
    wanted = [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 1.0, 0.0]
    assert factor == pytest.approx(wanted, abs=1e-6) and untaught is None


def test_sdpg_distils_what_was_better_than_its_group(tokenizer):
    contexts = builder(tokenizer, feedback="always")
    mixed, uniform = group([True, True, False]), group([True, True])
    found = assign(load("sdpg"), contexts, mixed, uniform)
    assert [[s.teacher is not None for s in own] for own in found] == [[True, True, False], [False, False]]
    found = assign(load("sdpg", "algorithm.positive_only=false"), contexts, mixed, uniform)
    assert [[s.teacher is not None for s in own] for own in found] == [[True] * 3, [True] * 2]


# ---------------------------------------------------------------------------------------------------------- likelihoods


def test_rejection_sampling_keeps_successes(tokenizer):
    g = with_outcome(group([True, False, True, True, False]), 4, UNGRADED)
    [samples] = assign(load("rft"), builder(tokenizer), g)
    assert [None if s.advantages is None else s.advantages.tolist() for s in samples] == [
        [1, 1], None, [1, 1], [1, 1], None,
    ]  # fmt: skip
    algorithm, drawn = build_algorithm(load("rft", "algorithm.most_per_question=2")), []
    for seed in range(20):
        kept = algorithm.chosen(g, np.random.default_rng(seed))
        assert sum(kept) == 2 and not kept[1] and not kept[4]
        drawn.append(tuple(kept))
    assert len(set(drawn)) == 3


def test_a_rollout_of_several_turns_is_kept_whole():
    g = group([True, False])
    turns = (turn("first"), g.rollouts[0].last)
    longer = replace(g, rollouts=(Rollout(turns), g.rollouts[1]))
    assert build_algorithm(load("rft")).chosen(longer, np.random.default_rng(0)) == [True, True, False]


def test_ssd_leaves_out_what_is_empty_or_a_single_line():
    g = group([False] * 4, texts=["", " \n\n ", "one", "one\n\ntwo\n"])
    assert build_algorithm(load("ssd")).chosen(g, np.random.default_rng(0)) == [False, False, False, True]
    plan = build_algorithm(load("ssd")).plan
    assert plan.temperature == 1.0 and build_algorithm(load("sft")).plan.temperature is None


# --------------------------------------------------------------------------------------------- coefficients, lengths


def test_a_coefficient_rises_and_falls():
    settings = DistillationSettings(
        coefficient=2.0, ramp=Ramp(start=0, steps=2), second_ramp=Ramp(end=0, steps=4, after=6)
    )
    assert [settings.at(step).coefficient for step in (1, 2, 3, 7, 9, 11, 20)] == pytest.approx([0, 1, 2, 2, 1, 0, 0])


def test_responses_grow_from_a_prefix_to_their_full_length():
    recipe = load("prefix")
    lengths = [training_sampling(recipe, step).max_tokens for step in (1, 2, 11, 21, 41, 80)]
    assert lengths == [16, 16, 24, 32, 48, 48] and recipe.evaluation_tokens == 48
    assert training_sampling(load("opsd"), 1).max_tokens == 48
    assert training_sampling(load("ssd"), 1).top_k == 20


@pytest.mark.parametrize(
    ("algorithm", "overrides", "says"),
    [
        ("sc-sdpo", ["context.feedback=fallback"], "context.feedback has no effect with algorithm.smoothing=0"),
        ("rlsd", ["distillation.alpha=1"], "distillation has no effect with these settings of rlsd"),
        ("rlsd", ["context.demonstration=none"], "the teacher needs a context"),
        ("rlsd", ["context.demonstration=random", "rollout.responses=1"], "a single response has no sibling"),
        ("rlcsd", ["algorithm.smallest_addition=0.5"], "algorithm.smallest_addition=0.5 leaves no addition"),
        ("rlcsd", ["policy_gradient.aggregation=fixed-length"], "rlcsd takes two means over tokens"),
        ("sdpg", ["policy_gradient.aggregation=fixed-length"], "both streams under one normaliser"),
        ("sdar", ["distillation.alpha=0.5"], "distillation.level=token is defined for the reverse KL only"),
        ("rft", ["policy_gradient.variant=ppo"], "rft maximises a likelihood"),
        ("rft", ["policy_gradient.sampler_threshold=2"], "rft maximises a likelihood"),
        ("rft", ["policy_gradient.normalize_by_std=true"], "policy_gradient.normalize_by_std has no effect"),
        ("rft", ["algorithm.most_per_question=8"], "algorithm.most_per_question=8 has no effect"),
        ("rft", ["context.feedback=always"], "context.feedback has no effect without a teacher"),
        ("ssd", ["run.steps=2"], "run.questions to the number of samples (here 10240)"),
        ("ssd", ["rollout.source=solution"], "rollout.source=solution and ssd do not go together"),
        ("sdpo", ["distillation.second_ramp={end: 0, steps: 3}"], "a single one is called ramp"),
        ("sdpo", ["distillation.prefix_tokens=48"], "distillation.prefix_tokens=48 has no effect"),
        ("sdft", ["distillation.prefix_tokens=3"], "prefix_tokens=3 leaves no token beside skip_tokens=3"),
        ("sdpo", ["distillation.blend={largest: 0}"], "distillation.blend.largest"),
        ("prefix", ["rollout.growth_steps=null"], "set both or none"),
        ("prefix", ["rollout.first_response_tokens=48"], "leaves nothing to grow to"),
        ("prefix", ["context.feedback=always"], "a response that is cut short gets none that mean anything"),
    ],
)
def test_mistakes_are_named(algorithm, overrides, says):
    with pytest.raises(UserError) as error:
        build_algorithm(load(algorithm, *overrides))
    assert says in str(error.value)
