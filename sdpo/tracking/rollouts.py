"""`rollouts/step-NNNNNN.parquet`: everything that was asked, answered and judged, one compressed table per step."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo.tracking.disk import atomic_write

if TYPE_CHECKING:
    from sandbox import Judgement
    from sdpo.types import Group

# The columns that every table has; a row may bring more.  What a judgement says is null where nothing was judged.
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),  # index of the response within its group
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


def rollout_rows(
    groups: Iterable[Group], prompts: Sequence[str], teacher_prompts: Sequence[Sequence[str | None]] | None = None
) -> list[dict[str, Any]]:
    """Rows for `write_rollouts`.

    Args:
        groups: the step's groups.
        prompts: [groups] the text that each group was asked.
        teacher_prompts: [groups][n] what the teacher of each response read, None where it had none.
    """
    rows = []
    for g, group in enumerate(groups):
        judgements = group.judgements or [None] * len(group.rollouts)
        for i, (rollout, judgement) in enumerate(zip(group.rollouts, judgements, strict=True)):
            rows.append(
                {
                    "problem_id": group.problem.id,
                    "sample": i,
                    "prompt": prompts[g],
                    "response": rollout.text,
                    "response_tokens": len(rollout.response_ids),
                    "finish_reason": rollout.finish_reason,
                    "policy_version": rollout.policy_version,
                    **(_judged(judgement) if judgement else {}),
                    "teacher_prompt": teacher_prompts[g][i] if teacher_prompts else None,
                }
            )
    return rows


def _judged(judgement: Judgement) -> dict[str, Any]:
    return {
        "passed": judgement.passed,
        "reward": float(judgement.passed),
        "verdict": str(getattr(judgement.verdict, "value", judgement.verdict)),
        "feedback": judgement.feedback,
    }


def rollouts_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.parquet"


def write_rollouts(folder: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one step's table (zstd), in place of an earlier one of the step.  Raises `UserError` on a full disk."""
    rows = [{**row, "step": step} for row in rows]
    extra = list(dict.fromkeys(key for row in rows for key in row if key not in SCHEMA.names))
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    columns += [pa.array([row.get(name) for row in rows]) for name in extra]
    # Built in memory (a step is some megabytes), so that the file is renamed into place whole.
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, names=[*SCHEMA.names, *extra]), buffer, compression="zstd")
    path = rollouts_path(folder, step)
    atomic_write(path, buffer.getvalue())
    return path


def rollout_steps(folder: Path) -> list[int]:
    """The steps that have a table, in order."""
    names = (re.fullmatch(r"step-(\d+)\.parquet", path.name) for path in folder.glob("step-*.parquet"))
    return sorted(int(name[1]) for name in names if name)


def read_rollouts(folder: Path, step: int) -> list[dict[str, Any]]:
    return pq.read_table(rollouts_path(folder, step)).to_pylist()
