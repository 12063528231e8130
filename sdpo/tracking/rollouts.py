"""`rollouts/step-NNNNNN.parquet`: everything that was asked, answered and judged, one compressed table per step.

A row is one response; a rollout of several turns has as many rows, each with the conversation before it as its prompt.
Some rows also say what the learner found of every token (`sdpo.tracking.tokens`).  All tables have one schema, so that
`datasets.load_dataset("parquet", data_files="runs/NAME/rollouts/*.parquet")` reads them as one data set.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo.tracking.disk import atomic_write
from sdpo.tracking.tokens import TOKEN_SCHEMA, Decode, TokenTexts, token_columns
from sdpo.types import Group, Outcome, Sample, TokenCredit

# What an outcome says is null where nothing was graded.
RESPONSE_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),  # index of the rollout within its group
        ("turn", pa.int32()),  # number of the response within its rollout, from 1
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("response_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("policy_version", pa.int32()),
        ("passed", pa.bool_()),
        ("reward", pa.float32()),
        ("verdict", pa.string()),
        ("feedback", pa.string()),
        ("teacher_prompt", pa.string()),  # null where no teacher re-scored the response
    ]
)
SCHEMA = pa.schema([*RESPONSE_SCHEMA, *TOKEN_SCHEMA])


def rollout_rows(
    groups: Sequence[Group],
    samples: Sequence[Sequence[Sample]],
    decode: Decode,
    credit: Sequence[Sequence[TokenCredit | None]] | None = None,
) -> list[dict[str, Any]]:
    """Rows for `write_rollouts`.

    Args:
        groups: the step's groups.
        samples: of each group, what each of its turns trains on.
        decode: token ids → text.
        credit: what the learner found of each sample's tokens; None where that is not recorded.
    """
    rows, texts = [], TokenTexts(decode)
    for group, trained, found in zip(groups, samples, credit or [[None] * len(s) for s in samples], strict=True):
        first = group.turns[0].prompt_ids
        question = decode(first)
        places = [(i, number) for i, r in enumerate(group.rollouts) for number, _ in enumerate(r.turns, start=1)]
        for (i, number), turn, sample, tokens in zip(places, group.turns, trained, found, strict=True):
            teacher = sample.teacher
            rows.append(
                {
                    "problem_id": group.task.id,
                    "sample": i,
                    "turn": number,
                    "prompt": question if turn.prompt_ids == first else decode(turn.prompt_ids),
                    "response": turn.text,
                    "response_tokens": len(turn.response_ids),
                    "finish_reason": turn.finish_reason,
                    "policy_version": turn.policy_version,
                    **(_graded(turn.outcome) if turn.outcome else {}),
                    # What the teacher was told where there is one: an algorithm may have changed it.
                    **({"feedback": teacher.hint.feedback} if teacher and teacher.hint else {}),
                    "teacher_prompt": decode(teacher.prompt_ids) if teacher else None,
                    **(token_columns(sample, tokens, texts) if tokens else {}),
                }
            )
    return rows


def _graded(outcome: Outcome) -> dict[str, Any]:
    return {
        "passed": outcome.solved,
        "reward": outcome.reward,
        "verdict": outcome.label,
        "feedback": outcome.feedback,
    }


def rollouts_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.parquet"


def write_rollouts(folder: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one step's table (zstd), in place of an earlier one of the step.  Raises `UserError` on a full disk."""
    rows = [{**row, "step": step} for row in rows]
    if unknown := sorted({key for row in rows for key in row} - set(SCHEMA.names)):
        raise ValueError(f"rollout tables have no column {unknown[0]}; all of them have one schema")
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    # Built in memory (a step is some megabytes), so that the file is renamed into place whole.
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer, compression="zstd")
    path = rollouts_path(folder, step)
    atomic_write(path, buffer.getvalue())
    return path


def rollout_steps(folder: Path) -> list[int]:
    """The steps that have a table, in order."""
    names = (re.fullmatch(r"step-(\d+)\.parquet", path.name) for path in folder.glob("step-*.parquet"))
    return sorted(int(name[1]) for name in names if name)


def thin_out(folder: Path, budget_bytes: float) -> list[int]:
    """Delete tables until the rest fits into the budget; returns their steps.

    The older, the sparser: the next to go is the step whose gap would be smallest in proportion to its age.  The first
    and the newest stay.
    """
    steps = rollout_steps(folder)
    sizes = {step: rollouts_path(folder, step).stat().st_size for step in steps}
    dropped: list[int] = []
    while sum(sizes.values()) > budget_bytes and len(steps) > 2:
        newest = steps[-1]
        index = min(range(1, len(steps) - 1), key=lambda i: (steps[i + 1] - steps[i - 1]) / (newest - steps[i]))
        step = steps.pop(index)
        rollouts_path(folder, step).unlink()
        del sizes[step]
        dropped.append(step)
    return sorted(dropped)


def read_rollouts(folder: Path, step: int) -> list[dict[str, Any]]:
    return pq.read_table(rollouts_path(folder, step)).to_pylist()
