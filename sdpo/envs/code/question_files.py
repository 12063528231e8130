"""Rows of files as questions, whatever their format: what is wrong with a row, and where it stood, is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sdpo.envs.code.question import Question
from sdpo.envs.report import BadRowReport, DataReport
from sdpo.envs.rows.files import BadRow, Progress, Row, RowKind, read_rows

QuestionMaker = Callable[[Row, int], Question | None]  # row and its number; None: it is not asked for


def questions_of(
    files: Sequence[Path], kind: RowKind, make: QuestionMaker, report: DataReport, progress: Progress | None = None
) -> Iterator[Question]:
    """The usable rows of the files in order; `report` receives counts and bad rows, those that `make` raises for."""
    seen: dict[str, str] = {}
    for file in files:
        for unit, number, row in read_rows(file, progress, kind):
            report.rows += 1
            try:
                if isinstance(row, BadRow):
                    raise row
                question = make(row, number)
                if question is None:
                    continue
                if question.id in seen:
                    raise BadRow(f"problem {question.id} was already in {seen[question.id]}")
            except BadRow as reason:
                report.bad_rows.append(BadRowReport(file.name, number, str(reason), unit))
            else:
                seen[question.id] = f"{file.name}, {unit} {number}"
                yield question
