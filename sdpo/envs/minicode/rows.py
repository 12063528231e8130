"""A world as rows of LiveCodeBench's format: 2 public and 8 private tests a problem, training and held-out problems."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from sdpo.envs.code import TestCase
from sdpo.envs.code.lcb_rows import LCBRow, write_rows
from sdpo.envs.minicode.examples import make_test
from sdpo.envs.minicode.exercise import Exercise
from sdpo.envs.minicode.family import LISTS, Family
from sdpo.envs.minicode.world import World, hard_world, make_world

Split = Literal["train", "heldout"]

PUBLIC_TESTS = 2
PRIVATE_TESTS = 8
TRIES = 60  # random inputs from which each test takes the one that tells the alternatives apart best
_DATES = {"train": "2025-01-01T00:00:00", "heldout": "2025-03-01T00:00:00"}


def task_row(task: Exercise, question_id: str, split: Split, rng: random.Random) -> LCBRow:
    """The row of one task; its tests differ from each other."""
    tests: list[TestCase] = []
    while len(tests) < PUBLIC_TESTS + PRIVATE_TESTS:
        if (test := make_test(task, rng, TRIES)) not in tests:
            tests.append(test)
    words = ", ".join(slot.word for slot in task.slots)
    return LCBRow(
        question_id=question_id,
        title=words,
        content=task.statement,
        public_tests=tests[:PUBLIC_TESTS],
        private_tests=tests[PUBLIC_TESTS:],
        contest_date=_DATES[split],
        contest_id=question_id.rsplit("-", 1)[0],
        difficulty=task.difficulty,
        platform="leetcode" if task.functional else "codeforces",
        starter_code=task.starter_code,
        func_name="solve" if task.functional else None,
        files=task.files,
        split=split,
        solution=task.program,
        metadata={"family": task.family.name, "kind": task.kind},
    )


def task_rows(name: str, train: Iterable[Exercise], held_out: Iterable[Exercise]) -> Iterator[LCBRow]:
    """Rows with ids `<name>-train-000` and `<name>-heldout-000`; the tests of a row depend on its id alone."""
    sides: tuple[tuple[Split, Iterable[Exercise]], ...] = (("train", train), ("heldout", held_out))
    for split, tasks in sides:
        for index, task in enumerate(tasks):
            question_id = f"{name}-{split}-{index:03d}"
            yield task_row(task, question_id, split, random.Random(question_id))


def world_rows(world: World) -> Iterator[LCBRow]:
    return task_rows(world.name, world.train, world.held_out)


def write_world(path: str | Path, *, seed: int, family: Family = LISTS, hard: bool = False) -> int:
    """Write the world of a seed as JSONL, problems to train on and held-out ones, and return how many they are."""
    return write_rows(path, world_rows((hard_world if hard else make_world)(seed, family)))
