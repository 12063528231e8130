"""When a teacher of its own is asked for which group, whatever the order in which groups are finished."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.learner.answers import Answers
from sdpo.learner.teacher_pool import key_of
from sdpo.rollout.generation import PendingGroup
from sdpo.training.foresight import Foresight
from tests.helpers.prompts import builder
from tests.helpers.tasks import group, problem
from tests.learner.test_teacher_pool import OWN, PoolHere
from tests.learner.tiny import recipe

FROZEN = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "probe.every=0")
PASSED = ([True, False, True, True], [False, True, True, False], [True, True, True, False])
GROUPS = [group(row, task=problem(f"Add {i} numbers.", f"p{i}")) for i, row in enumerate(PASSED)]


class Batch:
    """Groups that are graded when the test says so."""

    def __init__(self) -> None:
        self.futures = [[asyncio.get_running_loop().create_future() for _ in g.rollouts] for g in GROUPS]
        self.pending = [PendingGroup(g.task, tuple(f)) for g, f in zip(GROUPS, self.futures, strict=True)]

    async def grade(self, index: int) -> None:
        for future, rollout in zip(self.futures[index], GROUPS[index].rollouts, strict=True):
            future.set_result(rollout)
        await settled()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def made(model, tokenizer, *overrides):
    settings = recipe(model, "sdpo", *OWN[:1], *overrides)
    algorithm, contexts = build_algorithm(settings), builder(tokenizer)
    answers = Answers(PoolHere(settings), algorithm.plan)
    return algorithm, contexts, answers, Foresight(settings, algorithm, contexts, SimpleNamespace(answers=answers))


def begin(foresight: Foresight, step: int) -> Batch:
    batch = Batch()
    for index, pending in enumerate(batch.pending):
        foresight.begin(step, index, pending)
    return batch


def known(answers: Answers) -> int:
    return len(answers.pool._answers)


@pytest.mark.parametrize("seed", range(3))
async def test_groups_are_asked_for_as_they_are_graded_and_nothing_is_left(model, tokenizer, seed):
    algorithm, contexts, answers, foresight = made(model, tokenizer, *FROZEN)
    rng = np.random.default_rng(seed)
    foresight.reached(1, rng)
    batch, counted = begin(foresight, 1), [known(answers)]
    for index in (2, 0, 1):
        await batch.grade(index)
        counted.append(known(answers))
    assert counted == sorted(set(counted)) and counted[0] == 0  # more with each group, while others are under way
    assert not contexts.counts
    assigned = algorithm.assign(GROUPS, contexts, rng)
    wanted = {key_of(*pair) for own in assigned for pair in answers.foreseen(own)}
    assert wanted == set(answers.pool._answers)


@pytest.mark.parametrize("overrides, early", [(FROZEN, True), (("teacher.rate=0.3",), False)], ids=["frozen", "ema"])
async def test_the_next_batch_is_asked_for_when_the_teacher_has_its_weights(model, tokenizer, overrides, early):
    algorithm, contexts, answers, foresight = made(model, tokenizer, *overrides)
    rng = np.random.default_rng(0)
    later = begin(foresight, 2)  # sampled ahead
    foresight.reached(1, rng)
    for index in range(3):
        await later.grade(index)
    assert known(answers) == 0
    algorithm.assign(GROUPS, contexts, rng)
    foresight.assigned(1, rng)
    await settled()
    assert (known(answers) > 0) == early
    foresight.reached(2, rng)
    await settled()
    wanted = {key_of(*pair) for own in algorithm.assign(GROUPS, contexts, rng) for pair in answers.foreseen(own)}
    assert wanted == set(answers.pool._answers)
    assert set(answers.pool._steps.values()) == {2}


async def test_nothing_comes_of_what_was_given_up(model, tokenizer):
    _, _, answers, foresight = made(model, tokenizer, *FROZEN)
    batch = begin(foresight, 1)
    foresight.close()
    foresight.reached(1, np.random.default_rng(0))
    for index in range(3):
        await batch.grade(index)
    assert known(answers) == 0 and not foresight._tasks


async def test_another_tasks_demonstration_is_known_with_the_batch(model, tokenizer):
    _, _, answers, foresight = made(model, tokenizer, *FROZEN, "context.demonstration_of=other")
    foresight.reached(1, np.random.default_rng(0))
    await begin(foresight, 1).grade(0)
    assert known(answers) == 0
