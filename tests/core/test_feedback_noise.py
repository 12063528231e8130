"""Wrong feedback on purpose: who gets it, and what it must not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.types import Group
from studies.feedback_noise import with_feedback_noise
from tests.helpers.prompts import builder
from tests.helpers.tasks import RIGHT, UNGRADED, group, problem, with_outcome, wrong


def question(name: str, passed: list[bool]) -> Group:
    """A group whose failures name their question."""
    made = group(passed, task=problem(name=name))
    for i, right in enumerate(passed):
        made = with_outcome(made, i, RIGHT if right else wrong(name, name, "?"))
    return made


def names(groups: list[Group]) -> list[list[str]]:
    """Which question's failure each response is told."""
    feedback = [[rollout.outcome.feedback for rollout in g.rollouts] for g in groups]
    told = {wrong(name, name, "?").feedback: name for name in "abc"} | {None: "passed"}
    return [[told[text] for text in row] for row in feedback]


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
        assert (after.rewards == before.rewards).all()
        for one, other in zip(before.rollouts, after.rollouts, strict=True):
            assert replace(other.last, outcome=one.outcome) == one.last
            assert replace(other.outcome, feedback=one.outcome.feedback) == one.outcome


def test_the_same_seed_gives_the_same_noise():
    groups = [question(name, [False] * 5) for name in "abc"]
    one, two = (names(with_feedback_noise(groups, 0.5, np.random.default_rng(7))[0]) for _ in range(2))
    assert one == two


def test_where_no_other_question_failed_the_own_feedback_stays():
    other = with_outcome(question("b", [True, False]), 1, UNGRADED)
    noisy, swapped = with_feedback_noise(
        [question("a", [False]), question("a", [False]), other], 1.0, np.random.default_rng(0)
    )
    assert swapped == 0 and noisy[2].rollouts[1].outcome is UNGRADED


NOISY = "algorithm.name=studies.feedback_noise:SDPO"


def recipe(*overrides: str, algorithm: str = "sdpo"):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", overrides)


def test_the_teacher_reads_the_wrong_feedback(tokenizer):
    contexts = builder(tokenizer, feedback="always")
    algorithm = build_algorithm(recipe(NOISY, "algorithm.noise=1"))
    samples = algorithm.assign(
        [question("apple", [False]), question("pear", [False])], contexts, np.random.default_rng(0)
    )
    texts = [tokenizer.decode(group[0].teacher.prompt_ids) for group in samples]
    assert "pear" in texts[0] and "apple" in texts[1] and contexts.counts["feedback_swapped"] == 2


def test_so_does_a_probes_teacher(tokenizer):
    contexts = builder(tokenizer, feedback="always")
    apple, _ = contexts.batch = [question("apple", [False]), question("pear", [False])]
    algorithm = build_algorithm(recipe(NOISY, "algorithm.noise=1"))
    told = algorithm.told(apple, 0, contexts, np.random.default_rng(0), 0)
    assert "pear" in told.hint.feedback and "apple" not in told.hint.feedback


@pytest.mark.parametrize(
    ("overrides", "algorithm", "says"),
    [
        (["algorithm.noise=0.1"], "grpo", "unknown option algorithm.noise"),
        (["algorithm.noise=0.1"], "sdpo", "unknown option algorithm.noise"),
        ([NOISY, "algorithm.noise=0.1", "context.feedback=never"], "sdpo", "algorithm.noise has no effect with"),
        ([NOISY, "algorithm.noise=1.1"], "sdpo", "less than or equal to 1"),
        ([NOISY, "algorithm.noise=0"], "sdpo", "greater than 0"),
        ([NOISY], "sdpo", "algorithm.noise is required"),
        (["context.feedback_noise=0.1"], "sdpo", "context.feedback_noise is now algorithm.noise"),
    ],
)
def test_noise_without_effect_is_an_error(overrides, algorithm, says):
    with pytest.raises(UserError) as error:
        recipe(*overrides, algorithm=algorithm)
    assert says in str(error.value)
