"""Which bundled environment grades rows of one's own, told by what they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdpo.config.registry import ASSERTION_SOURCES
from sdpo.config.sections import ColumnSettings
from sdpo.envs.rows import BadRow, Row


@dataclass(frozen=True)
class Recognised:
    """An environment, and where its rewards come from, in words.  source: `data.source`, which names some formats."""

    kind: str
    rewards: str
    source: str | None = None


def recognised(rows: Sequence[Row]) -> Recognised | None:
    """The environment that can use every one of the rows; None where there is none.

    Answers go to mathematics only where each of them has a digit or a TeX command: a name or a sentence has to be
    compared by somebody who knows how.
    """
    from sdpo.envs.choice import choice_task
    from sdpo.envs.code.assertion_rows import FORMATS
    from sdpo.envs.math import math_task

    columns = ColumnSettings()
    if _usable(rows, lambda row: (row["question_content"], row["public_test_cases"], row["private_test_cases"])):
        return Recognised("code", "the rows' tests, run in the sandbox (LiveCodeBench's format)")
    for source in ASSERTION_SOURCES:
        if _usable(rows, partial(_question, FORMATS[source])):
            return Recognised("code", f"the rows' tests, run in the sandbox (rows as of {source})", source)
    if _usable(rows, lambda row: choice_task(row, columns)):
        return Recognised("choice", "the label of the right choice")
    if _usable(rows, lambda row: _checked(math_task(row, columns).content.right)):
        return Recognised("math", "the rows' answers, compared as mathematics with the last \\boxed{} of a response")
    return None


def _question(read: Callable[[Row, int], Any], row: Row) -> Any:
    return read(row, 1)


def _checked(answer: str) -> None:
    if not re.search(r"\d|\\[a-zA-Z]", answer):
        raise BadRow("its answer is no mathematics")


def _usable(rows: Sequence[Row], read: Callable[[Row], Any]) -> bool:
    try:
        for row in rows:
            read(row)
    except (BadRow, KeyError):
        return False
    return bool(rows)
