"""Generations in the JSON that LiveCodeBench's own `lcb_runner.runner.custom_evaluator` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.types import Group, Rollout


def export_generations(path: str | Path, groups: Iterable[Group]) -> int:
    """Write `[{"question_id": …, "code_list": […]}, …]`, sorted by question id, and return how many questions.

    The evaluator pairs entries and benchmark problems by position after sorting both by id, and refuses another
    number of entries than it has problems.  So the groups have to be those to exactly the problems that its
    `--release_version`, `--start_date` and `--end_date` select (its end date is included, at midnight: the window
    [2025-02-01, 2025-05-01) is `--start_date 2025-02-01 --end_date 2025-05-01`).  A response without a program is the
    empty program, as in the evaluator's own extraction.
    """
    entries: list[dict[str, Any]] = sorted(
        ({"question_id": g.task.id, "code_list": [_program(rollout) for rollout in g.rollouts]} for g in groups),
        key=lambda entry: str(entry["question_id"]),
    )
    ids = [entry["question_id"] for entry in entries]
    if len(set(ids)) != len(ids):
        raise UserError("LiveCodeBench's evaluator takes one entry per problem, but a problem has several here.")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(entries)


def _program(rollout: Rollout) -> str:
    return (rollout.outcome.details.get("code") if rollout.outcome else None) or ""
