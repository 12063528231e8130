"""Which tests train and which measure, and which problems train and which measure.  Every split has a name.

Test splits
    published       training: a random half of each question's private tests; evaluation: all private tests.  The data
                    preparation released with arXiv 2601.20802: `numpy.random.seed(0)` once, then per question in file
                    order `sort(choice(n, max(1, n // 2), replace=False))`.  Public tests stand in the statement and
                    are in neither.
    official        training as in published; evaluation: public then private tests, LiveCodeBench's own verdict.
    disjoint        training as in published; evaluation: the private tests that are not in it.
    public-private  training: the public tests; evaluation: the private tests.

Problem splits
    none            every problem trains and is evaluated (as published).
    hash            a problem is held out when a hash of the seed and its id falls below `held_out_fraction`: adding,
                    removing or reordering other problems moves none.
    marked          as the rows say (`metadata.split`).

The test split is drawn over all questions that were read, before any exclusion, so that neither excluding a question
nor the problem split changes the tests of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sandbox import Limits, TestCase
from sdpo.envs.code.problem import Problem
from sdpo.envs.code.question import Question
from sdpo.envs.report import DataReport
from sdpo.errors import UserError

PUBLISHED_SEED = 0

Tests = tuple[TestCase, ...]


@dataclass(frozen=True)
class ProblemSet:
    """Problems to train on and problems to evaluate on, and the names of what decided it."""

    train: list[Problem]
    evaluation: list[Problem]
    name: str
    test_split: str
    problem_split: str
    report: DataReport = field(default_factory=DataReport)


class _CannotSplit(ValueError):
    """Why one question cannot be used by a split."""


# ------------------------------------------------------------------------------------------------------ tests


def _published(question: Question, random: np.random.RandomState) -> tuple[Tests, Tests]:
    half = _random_half(question, random)
    return tuple(question.private_tests[i] for i in half), question.private_tests


def _official(question: Question, random: np.random.RandomState) -> tuple[Tests, Tests]:
    training, private = _published(question, random)
    return training, question.public_tests + private


def _disjoint(question: Question, random: np.random.RandomState) -> tuple[Tests, Tests]:
    half = set(_random_half(question, random))
    training = tuple(test for i, test in enumerate(question.private_tests) if i in half)
    # The same test may stand in a question twice; a copy of a training test would be an overlap.
    evaluation = tuple(t for i, t in enumerate(question.private_tests) if i not in half and t not in training)
    if not evaluation:
        raise _CannotSplit("test_split=disjoint leaves no test for evaluation")
    return training, evaluation


def _public_private(question: Question, random: np.random.RandomState) -> tuple[Tests, Tests]:
    if not question.public_tests or not question.private_tests:
        raise _CannotSplit("test_split=public-private needs public and private tests")
    return question.public_tests, question.private_tests


def _random_half(question: Question, random: np.random.RandomState) -> list[int]:
    count = len(question.private_tests)
    if count == 0:
        raise _CannotSplit("it has no private tests")
    return np.sort(random.choice(count, size=max(1, count // 2), replace=False)).tolist()


TEST_SPLITS: dict[str, Callable[[Question, np.random.RandomState], tuple[Tests, Tests]]] = {
    "published": _published,
    "official": _official,
    "disjoint": _disjoint,
    "public-private": _public_private,
}


# --------------------------------------------------------------------------------------------------- problems


def held_out(problem_id: str, seed: int, fraction: float) -> bool:
    """Whether the hash split holds this problem out; a function of its arguments alone."""
    digest = hashlib.sha256(f"{seed}\0{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _marked(question: Question) -> bool:
    if question.mark is None:
        raise UserError(
            f"data.problem_split=marked, but problem {question.id} carries no mark.  Give every row a metadata.split "
            "of train or heldout, or use data.problem_split=hash."
        )
    return question.mark == "heldout"


PROBLEM_SPLITS = ("none", "hash", "marked")


# ---------------------------------------------------------------------------------------------------- dataset


def make_problem_set(
    questions: Iterable[Question],
    *,
    name: str,
    test_split: str,
    problem_split: str,
    seed: int = 0,
    held_out_fraction: float | None = None,
    exclude: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    report: DataReport | None = None,
) -> ProblemSet:
    """Questions in file order → ProblemSet.

    `problem_split="hash"` needs `seed` and `held_out_fraction` (strictly between 0 and 1), which nothing else reads:
    the test splits are drawn from the published seed, so that "published" is one thing.  `exclude` maps ids to leave
    out to the reason.  Raises UserError for an unknown split, and when nothing is left to train on or to evaluate on.
    """
    _check_name("data.test_split", test_split, TEST_SPLITS)
    _check_name("data.problem_split", problem_split, PROBLEM_SPLITS)
    if problem_split == "hash" and not (held_out_fraction is not None and 0 < held_out_fraction < 1):
        raise UserError(f"data.held_out_fraction={held_out_fraction}: problem_split=hash needs one between 0 and 1.")
    report = report or DataReport()
    limits = limits or Limits()
    exclude = exclude or {}
    random = np.random.RandomState(PUBLISHED_SEED)
    usable: list[tuple[Question, Problem]] = []
    for question in questions:
        try:
            training, evaluation = TEST_SPLITS[test_split](question, random)
        except _CannotSplit as reason:
            report.left_out[question.id] = str(reason)
            continue
        if question.id in exclude:
            report.excluded[question.id] = exclude[question.id]
        else:
            usable.append((question, question.problem(training, evaluation, limits)))
    if problem_split == "none":
        train = evaluated = [problem for _, problem in usable]
    else:
        fraction = held_out_fraction or 0.0  # a number where the hash decides
        is_held_out = _marked if problem_split == "marked" else lambda q: held_out(q.id, seed, fraction)
        train, evaluated = _divide(usable, is_held_out, report)
    for side, what in ((train, "to train on"), (evaluated, "to evaluate on")):
        if not side:
            raise UserError(
                f"No problem of {name} is left {what} with test_split={test_split} and problem_split={problem_split}"
                f"{f' (held_out_fraction={held_out_fraction}, seed={seed})' if problem_split == 'hash' else ''}: "
                f"{len(usable)} usable problems.  Choose another split, or give more data."
            )
    return ProblemSet(list(train), list(evaluated), name, test_split, problem_split, report)


def _divide(
    usable: Sequence[tuple[Question, Problem]], is_held_out: Callable[[Question], bool], report: DataReport
) -> tuple[list[Problem], list[Problem]]:
    sides = [is_held_out(question) for question, _ in usable]
    trained_on = {question.asked for (question, _), out in zip(usable, sides, strict=True) if not out}
    train, evaluated = [], []
    for (question, problem), out in zip(usable, sides, strict=True):
        if not out:
            train.append(problem)
        elif question.asked in trained_on:
            report.left_out[question.id] = "held out, but the same question under another id is trained on"
        else:
            evaluated.append(problem)
    return train, evaluated


def _check_name(key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UserError(f"{key}={value!r} is unknown; choose one of {', '.join(known)}.")
