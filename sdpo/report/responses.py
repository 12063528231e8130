"""Recorded responses as they are looked at: rows of the rollout tables, with the credit of each and of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sdpo.errors import UserError
from sdpo.losses.advantages import group_advantages
from sdpo.tracking.rollouts import RESPONSE_SCHEMA, rollout_steps, rollouts_path
from sdpo.tracking.tokens import TOKEN_SCHEMA

_TEXTS = [name for name in RESPONSE_SCHEMA.names if name != "step"]


@dataclass(frozen=True)
class Tokens:
    """What is recorded of R tokens; float32 [R] or, of alternatives, [R, k].  None as in the tables."""

    texts: list[str]
    sampler_log_probs: np.ndarray | None
    log_probs: np.ndarray
    teacher_log_probs: np.ndarray | None
    entropy: np.ndarray
    teacher_entropy: np.ndarray | None
    top_texts: list[list[str]]
    top_log_probs: np.ndarray
    top_teacher_log_probs: np.ndarray | None

    @property
    def gains(self) -> np.ndarray | None:
        """[R]: log q − log π, how much more the teacher wants each token (below 0: less)."""
        return None if self.teacher_log_probs is None else self.teacher_log_probs - self.log_probs

    @property
    def disagreement(self) -> float | None:
        """The largest |log q − log π|; None where no teacher re-scored the response."""
        return None if self.gains is None or not len(self.gains) else float(np.abs(self.gains).max())


@dataclass(frozen=True)
class Response:
    step: int
    group: int  # number within the step: a task may be drawn twice
    row: dict[str, Any]  # of the table, without the columns of tokens
    advantage: float | None  # what GRPO gives to each of its tokens; None where it has no reward
    tokens: Tokens | None  # None: not recorded

    @property
    def task(self) -> str:
        return str(self.row["problem_id"])

    @property
    def outcome(self) -> str:
        """solved, failed, or ungraded where it has no reward."""
        if self.row["reward"] is None or np.isnan(self.row["reward"]):
            return "ungraded"
        return "solved" if self.row["passed"] else "failed"


def recorded_steps(run: Path) -> list[int]:
    """The steps that have a table.  Raises `UserError` if there is none."""
    steps = rollout_steps(run / "rollouts")
    if not steps:
        raise UserError(
            f"{run} has no table of rollouts (rollouts/step-….parquet): there is nothing to show. A run writes one "
            "after every step; wait for its first, or start one with: make train RECIPE=livecodebench"
        )
    return steps


def step_responses(run: Path, step: int, normalize_by_std: bool = False) -> list[Response]:
    """One step's responses in the table's order: group by group, rollout by rollout, turn by turn.

    normalize_by_std: of the GRPO advantages (`losses.advantages`), which are those of a rollout's last reward.
    """
    table = pq.read_table(rollouts_path(run / "rollouts", step))
    rows = table.select(_TEXTS).to_pylist()
    tokens = _tokens(table)
    groups, number = [], -1
    for row in rows:
        number += (row["sample"], row["turn"] or 1) == (0, 1)  # a group begins
        groups.append(max(number, 0))
    advantages = _advantages(rows, groups, normalize_by_std)
    return [Response(step, *each) for each in zip(groups, rows, advantages, tokens, strict=True)]


def normalizes_by_std(recipe: dict[str, Any]) -> bool:
    """Whether the run's own GRPO stream, if it has one, divides by the group's deviation."""
    return bool((recipe.get("policy_gradient") or {}).get("normalize_by_std", False))


def _advantages(rows: Sequence[dict[str, Any]], groups: Sequence[int], normalize_by_std: bool) -> list[float | None]:
    last: dict[int, dict[int, float]] = {}  # of each group and sample the reward of its last turn
    for row, group in zip(rows, groups, strict=True):
        reward = row["reward"]
        last.setdefault(group, {})[row["sample"]] = np.nan if reward is None else float(reward)
    found: dict[tuple[int, int], float] = {}
    for group, rewards in last.items():
        graded = {sample: reward for sample, reward in rewards.items() if not np.isnan(reward)}
        if graded:
            values = group_advantages(np.array(list(graded.values())), normalize_by_std=normalize_by_std)
            found |= {(group, sample): float(value) for sample, value in zip(graded, values, strict=True)}
    return [found.get((group, row["sample"])) for row, group in zip(rows, groups, strict=True)]


def _tokens(table: pa.Table) -> list[Tokens | None]:
    """Of every row; a table from before there were such columns has none."""
    if not set(TOKEN_SCHEMA.names) <= set(table.column_names):
        return [None] * table.num_rows
    columns = {name: table[name].combine_chunks() for name in TOKEN_SCHEMA.names}
    return [_of_row(columns, i) if columns["log_probs"][i].is_valid else None for i in range(table.num_rows)]


def _of_row(columns: dict[str, Any], i: int) -> Tokens:
    def flat(name: str) -> np.ndarray | None:
        value = columns[name][i]
        return value.values.to_numpy(zero_copy_only=False) if value.is_valid else None

    def matrix(name: str) -> np.ndarray | None:
        value = columns[name][i]
        if not value.is_valid:
            return None
        return value.values.flatten().to_numpy(zero_copy_only=False).reshape(len(value.values), -1)

    numbers = ("sampler_log_probs", "log_probs", "teacher_log_probs", "entropy", "teacher_entropy")
    return Tokens(
        texts=columns["tokens"][i].as_py(),
        top_texts=columns["top_tokens"][i].as_py(),
        **{name: flat(name) for name in numbers},
        **{name: matrix(name) for name in ("top_log_probs", "top_teacher_log_probs")},
    )
