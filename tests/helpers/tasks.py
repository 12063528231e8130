"""Tasks, graded rollouts and groups, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sandbox import Judgement, TestCase, TestResult, Verdict
from sdpo.envs.code import Problem
from sdpo.envs.code.environment import outcome_of
from sdpo.envs.code.published import published_feedback
from sdpo.types import Group, Outcome, Rollout, Task, Turn, VersionSpan

RIGHT = outcome_of(Judgement(Verdict.ACCEPTED, total_tests=1), published_feedback)
UNGRADED = outcome_of(Judgement(Verdict.SANDBOX_ERROR, message="worker died"), published_feedback)


def wrong(given: str = "1 2", expected: str = "3", printed: str = "4") -> Outcome:
    """That of a program which fails its only test."""
    result = TestResult(Verdict.WRONG_ANSWER, given, expected, stdout=printed)
    return outcome_of(Judgement(Verdict.WRONG_ANSWER, (result,), total_tests=1), published_feedback)


def problem(statement: str = "Add two numbers.", name: str = "p", solution: str | None = None, **columns: str) -> Task:
    """A task about a program."""
    test = TestCase("1 2", "3")
    return Problem(name, statement, (test,), (test,), solution=solution, columns=columns).task()


def turn(
    text: str = "",
    outcome: Outcome | None = None,
    *,
    prompt_ids: Sequence[int] = (1,),
    response_ids: Sequence[int] = (2, 3),
    finish_reason: str = "stop",
    version: int = 1,
) -> Turn:
    """A response whose every token had the log-prob 0."""
    span = VersionSpan(version, 0, len(response_ids))
    log_probs = np.zeros(len(response_ids), np.float32)
    return Turn(tuple(prompt_ids), tuple(response_ids), log_probs, finish_reason, (span,), text, outcome, answer=text)


def group(passed: Sequence[bool], texts: Sequence[str] | None = None, task: Task | None = None) -> Group:
    """One response per entry, "answer 0", "answer 1", … where no texts are given."""
    texts = texts or [f"answer {i}" for i in range(len(passed))]
    turns = [turn(text, RIGHT if right else wrong()) for text, right in zip(texts, passed, strict=True)]
    return Group(task or problem(), tuple(Rollout((made,)) for made in turns))


def with_outcome(made: Group, index: int, outcome: Outcome | None) -> Group:
    """The group with another outcome of one response."""
    rollouts = list(made.rollouts)
    rollouts[index] = Rollout((*rollouts[index].turns[:-1], replace(rollouts[index].last, outcome=outcome)))
    return replace(made, rollouts=tuple(rollouts))
