"""A minicode world as a ProblemSet, through the same files and the same loader as any LiveCodeBench data."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from sdpo.envs.code import Limits
from sdpo.envs.code.lcb_rows import LCBRow, write_rows
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.code.problem import Problem
from sdpo.envs.code.splits import ProblemSet
from sdpo.envs.minicode.family import LISTS, Family
from sdpo.envs.minicode.rows import write_world


def load_minicode(
    seed: int = 0,
    *,
    family: Family = LISTS,
    hard: bool = False,
    test_split: str = "disjoint",
    limits: Limits | None = None,
) -> ProblemSet:
    """Problems to train on and held-out compositions of the same words: 64 and 32 of the lists family; `hard`: only
    problems of two words, 64 and 64.

    Under the default split the tests that give feedback are not those that evaluate (`sdpo.envs.code.splits`).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minicode.jsonl"
        write_world(path, seed=seed, family=family, hard=hard)
        return load_livecodebench(
            path,
            test_split=test_split,
            problem_split="marked",
            max_bad_rows=0.0,
            limits=limits,
            name=f"{family.name} world {seed}{', hard' if hard else ''}",
        )


def read_rows(rows: Sequence[LCBRow], *, test_split: str = "disjoint") -> tuple[list[Problem], dict[str, str]]:
    """Rows as problems, through a file and the loader, and the kind of each by its id; no row is held out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, rows)
        dataset = load_livecodebench(path, test_split=test_split, problem_split="none", max_bad_rows=0.0)
    return dataset.train, {row.question_id: str(row.metadata["kind"]) for row in rows}
