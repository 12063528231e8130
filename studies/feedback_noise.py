"""Wrong feedback, on purpose: how much of it does a teacher bear?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sandbox import Judgement, Verdict
from sdpo.types import Group


def with_feedback_noise(
    groups: Sequence[Group], probability: float, rng: np.random.Generator
) -> tuple[list[Group], int]:
    """Failed responses get, with `probability`, the judgement of a failed response to another question.

    Another judgement of the batch is as real as the right one, so that only its being wrong makes the difference.  Who
    passed stays as it was, and so do rewards and demonstrations.  A response keeps its own judgement where no other
    question has a failure.  Returns the groups and the number of judgements that changed hands.
    """
    if probability == 0:
        return list(groups), 0
    failures = [(group.problem.id, j) for group in groups for j in group.judgements if _failed(j)]
    swapped, result = 0, []
    for group in groups:
        foreign = [judgement for problem, judgement in failures if problem != group.problem.id]
        judgements = list(group.judgements)
        for i, own in enumerate(judgements):
            if foreign and _failed(own) and rng.random() < probability:
                judgements[i] = foreign[rng.integers(len(foreign))]
                swapped += 1
        result.append(replace(group, judgements=tuple(judgements)))
    return result, swapped


def _failed(judgement: Judgement) -> bool:
    """Failed by its own fault: a sandbox that broke has no feedback to give."""
    return not judgement.passed and judgement.verdict != Verdict.SANDBOX_ERROR
