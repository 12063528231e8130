"""Wrong feedback on purpose: who gets it, and what it must not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sandbox import Judgement, TestResult, Verdict
from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.types import Group
from studies.feedback_noise import with_feedback_noise
from tests.core.test_context import builder, group, problem, tokenizer  # noqa: F401 — a fixture


def question(name: str, passed: list[bool]) -> Group:
    """A group whose failures name their question."""
    made = group(passed)
    wrong = Judgement(Verdict.WRONG_ANSWER, (TestResult(Verdict.WRONG_ANSWER, name, name, stdout="?"),), total_tests=1)
    judgements = tuple(j if j.passed else wrong for j in made.judgements)
    return Group(replace(problem(), id=name), made.rollouts, judgements)


def names(groups: list[Group]) -> list[list[str]]:
    return [[j.tests[0].input if j.tests else "passed" for j in g.judgements] for g in groups]


def test_the_share_of_swapped_feedback_is_the_probability():
    groups = [question("a", [False] * 400), question("b", [False] * 400)]
    noisy, swapped = with_feedback_noise(groups, 0.3, np.random.default_rng(0))
    wrong = names(noisy)[0].count("b") + names(noisy)[1].count("a")
    assert wrong == swapped and 0.26 < swapped / 800 < 0.34


def test_rewards_and_rollouts_stay():
    groups = [question("a", [True, False, False]), question("b", [False, True])]
    noisy, swapped = with_feedback_noise(groups, 1.0, np.random.default_rng(0))
    assert swapped == 3 and names(noisy) == [["passed", "b", "b"], ["a", "passed"]]
    for before, after in zip(groups, noisy, strict=True):
        assert after.rollouts is before.rollouts and (after.rewards == before.rewards).all()


def test_the_same_seed_gives_the_same_noise_and_none_draws_nothing():
    groups = [question(name, [False] * 5) for name in "abc"]
    one, two = (names(with_feedback_noise(groups, 0.5, np.random.default_rng(7))[0]) for _ in range(2))
    assert one == two
    rng = np.random.default_rng(7)
    assert with_feedback_noise(groups, 0.0, rng) == (groups, 0)
    assert rng.random() == np.random.default_rng(7).random()


def test_where_no_other_question_failed_the_own_feedback_stays():
    broken = Judgement(Verdict.SANDBOX_ERROR, message="worker died")
    other = question("b", [True, False])
    other = replace(other, judgements=(other.judgements[0], broken))
    noisy, swapped = with_feedback_noise(
        [question("a", [False]), question("a", [False]), other], 1.0, np.random.default_rng(0)
    )
    assert swapped == 0 and noisy[2].judgements[1] is broken


def recipe(*overrides: str, algorithm: str = "sdpo"):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", overrides)


def test_the_teacher_reads_the_wrong_feedback(tokenizer):  # noqa: F811
    contexts = builder(tokenizer, feedback="always")
    algorithm = build_algorithm(recipe("context.feedback_noise=1"))
    samples = algorithm.assign(
        [question("apple", [False]), question("pear", [False])], contexts, np.random.default_rng(0)
    )
    texts = [tokenizer.decode(group[0].teacher.prompt_ids) for group in samples]
    assert "pear" in texts[0] and "apple" in texts[1] and contexts.counts["feedback_swapped"] == 2


@pytest.mark.parametrize(
    ("overrides", "algorithm", "says"),
    [
        ([], "grpo", "context.feedback_noise has no effect with an algorithm other than sdpo"),
        (["context.feedback=never"], "sdpo", "context.feedback_noise has no effect with context.feedback=never"),
        (["context.feedback_noise=1.1"], "sdpo", "less than or equal to 1"),
    ],
)
def test_noise_without_effect_is_an_error(overrides, algorithm, says):
    with pytest.raises(UserError) as error:
        recipe("context.feedback_noise=0.1", *overrides, algorithm=algorithm)
    assert says in str(error.value)
