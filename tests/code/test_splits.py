"""Splits against computations written out by hand, and what must never change when something else does."""

from __future__ import annotations

import numpy as np
import pytest

from sandbox import TestCase
from sdpo.envs.code.question import Question
from sdpo.envs.code.splits import TEST_SPLITS, held_out, make_problem_set
from sdpo.envs.report import DataReport
from sdpo.errors import UserError


def question(name, private=4, public=1, **changes):
    tests = tuple(TestCase(f"{name} {k}\n", str(k)) for k in range(private))
    fields = {
        "id": name,
        "statement": f"Statement of {name}",
        "public_tests": tuple(TestCase(f"{name} public {k}\n", str(k)) for k in range(public)),
        "private_tests": tests,
    }
    return Question(**fields | changes)


def dataset(questions, **options):
    common = {"name": "made up", "test_split": "published", "problem_split": "none"}
    return make_problem_set(questions, **common | options)


def numbers(tests):
    """Which of the private tests these are."""
    return [int(test.output) for test in tests]


COUNTS = [5, 4, 1, 9, 2, 3, 12]


def test_published_is_one_stream_of_numpys_global_generator():
    data = dataset([question(f"q{k}", count) for k, count in enumerate(COUNTS)])
    state = np.random.get_state()
    try:
        np.random.seed(0)
        expected = []
        for count in COUNTS:
            keep = max(1, int(count * 0.5))
            expected.append(np.sort(np.random.choice(count, size=keep, replace=False)).tolist())
    finally:
        np.random.set_state(state)
    assert [numbers(p.training_tests) for p in data.train] == expected
    assert [numbers(p.evaluation_tests) for p in data.train] == [list(range(count)) for count in COUNTS]
    assert all("public" not in t.input for p in data.train for t in p.training_tests + p.evaluation_tests)


def test_published_gives_these_very_tests():
    data = dataset([question(f"q{k}", count) for k, count in enumerate(COUNTS)])
    # A pin: another numpy must not silently make another split of the same name.
    halves = [[0, 2], [0, 2], [0], [1, 3, 6, 7], [1], [1], [0, 2, 3, 6, 7, 10]]
    assert [numbers(p.training_tests) for p in data.train] == halves


def test_the_names_stand_in_the_dataset():
    data = dataset([question("q")], test_split="official")
    assert (data.name, data.test_split, data.problem_split) == ("made up", "official", "none")


def test_official_evaluates_on_public_then_private_tests():
    published = dataset([question("a"), question("b", 7)])
    official = dataset([question("a"), question("b", 7)], test_split="official")
    for one, other, source in zip(published.train, official.train, [question("a"), question("b", 7)], strict=True):
        assert one.training_tests == other.training_tests
        assert other.evaluation_tests == source.public_tests + source.private_tests


@pytest.mark.parametrize("count", range(2, 15))
def test_disjoint_divides_the_private_tests(count):
    data = dataset([question("a", 3), question("b", count)], test_split="disjoint")
    published = dataset([question("a", 3), question("b", count)])
    problem = data.train[1]
    assert problem.training_tests == published.train[1].training_tests
    assert sorted(numbers(problem.training_tests + problem.evaluation_tests)) == list(range(count))


def test_disjoint_does_not_evaluate_on_a_copy_of_a_training_test():
    same = TestCase("1\n", "1")
    twice = question("twice", private_tests=(same, TestCase("2\n", "2"), same, TestCase("3\n", "3")))
    only = question("only", private_tests=(same, same))
    data = dataset([twice, only, question("single", 1), question("fine", 6)], test_split="disjoint")
    for problem in data.train:
        assert not set(problem.training_tests) & set(problem.evaluation_tests)
        assert problem.evaluation_tests
    assert [p.id for p in data.train] == ["twice", "fine"]
    assert set(data.report.left_out) == {"only", "single"}


def test_public_private():
    data = dataset([question("a", 3, 2), question("b", 3, 0), question("c", 0, 2)], test_split="public-private")
    (problem,) = data.train
    assert (len(problem.training_tests), len(problem.evaluation_tests)) == (2, 3)
    assert not set(problem.training_tests) & set(problem.evaluation_tests)
    assert set(data.report.left_out) == {"b", "c"}
    assert any(
        "Left out (test_split=public-private needs public and private tests): b, c." == x for x in data.report.lines()
    )


@pytest.mark.parametrize("test_split", TEST_SPLITS)
def test_leaving_a_question_out_changes_no_other(test_split):
    questions = [question(f"q{k}", count) for k, count in enumerate([5, 4, 8, 9, 2, 3, 12])]
    whole = {p.id: p for p in dataset(questions, test_split=test_split).train}
    report = DataReport()
    fewer = dataset(questions, test_split=test_split, exclude={"q0": "why", "q3": "why", "other": "-"}, report=report)
    assert [p.id for p in fewer.train] == ["q1", "q2", "q4", "q5", "q6"]
    assert all(problem == whole[problem.id] for problem in fewer.train)
    assert report.excluded == {"q0": "why", "q3": "why"}
    split = dataset(questions, test_split=test_split, problem_split="hash", seed=1, held_out_fraction=0.5)
    assert all(problem == whole[problem.id] for problem in split.train + split.evaluation)


def test_a_question_without_private_tests_draws_nothing():
    with_it = dataset([question("a", 5), question("none", 0), question("b", 8)])
    without = dataset([question("a", 5), question("b", 8)])
    assert with_it.train == without.train
    assert with_it.report.left_out == {"none": "it has no private tests"}


def test_none_trains_and_evaluates_on_the_same_problems():
    data = dataset([question("a"), question("b")])
    assert data.train == data.evaluation and data.train is not data.evaluation


# ----------------------------------------------------------------------------------------------------------- problems

MANY = [question(f"p{k}") for k in range(400)]


def hashed(questions, seed=0, fraction=0.25):
    data = dataset(questions, problem_split="hash", seed=seed, held_out_fraction=fraction)
    return {p.id for p in data.train}, {p.id for p in data.evaluation}


def test_hash_never_evaluates_on_a_training_problem_and_loses_none():
    train, evaluation = hashed(MANY)
    assert not train & evaluation
    assert train | evaluation == {q.id for q in MANY}
    assert 0.15 < len(evaluation) / len(MANY) < 0.35


def test_hash_is_stable_under_added_removed_and_reordered_problems():
    _, whole = hashed(MANY)
    assert hashed(MANY[::-1])[1] == whole
    assert hashed(MANY[100:200])[1] == whole & {q.id for q in MANY[100:200]}
    assert hashed([question("new"), *MANY, question("newer")])[1] - {"new", "newer"} == whole


def test_hash_depends_on_the_seed_and_grows_with_the_fraction():
    assert hashed(MANY, seed=1)[1] != hashed(MANY, seed=0)[1]
    assert hashed(MANY, fraction=0.1)[1] < hashed(MANY, fraction=0.4)[1]
    shares = [np.mean([held_out(f"p{k}", seed, 0.25) for k in range(4000)]) for seed in range(5)]
    assert np.abs(np.array(shares) - 0.25).max() < 0.04


def test_marked_follows_the_rows():
    data = dataset([question("a", mark="train"), question("b", mark="heldout")], problem_split="marked")
    assert ([p.id for p in data.train], [p.id for p in data.evaluation]) == (["a"], ["b"])
    with pytest.raises(UserError, match="problem b carries no mark"):
        dataset([question("a", mark="train"), question("b")], problem_split="marked")


def test_the_same_question_under_another_id_is_not_evaluated_on():
    questions = [
        question("a", mark="train"),
        question("b", mark="heldout", statement="Statement  of\na "),
        question("c", mark="heldout"),
        question("d", mark="heldout", statement="Statement of a", files={"kit": "other"}),  # another question
    ]
    data = dataset(questions, problem_split="marked")
    assert [p.id for p in data.evaluation] == ["c", "d"]
    assert list(data.report.left_out) == ["b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_split": "publish"}, "data.test_split='publish' is unknown; choose one of published, official"),
        ({"problem_split": "random"}, "data.problem_split='random' is unknown; choose one of none, hash, marked"),
        ({"problem_split": "hash"}, "held_out_fraction"),
        ({"problem_split": "hash", "held_out_fraction": 1.0}, "held_out_fraction=1.0"),
        ({"problem_split": "hash", "held_out_fraction": 1e-9}, "left to evaluate on .*seed=0.*2 usable problems"),
        ({"exclude": {"a": "", "b": ""}}, "left to train on"),
    ],
)
def test_a_split_that_cannot_be_made_is_the_users_to_mend(options, message):
    with pytest.raises(UserError, match=message):
        dataset([question("a"), question("b")], **options)
