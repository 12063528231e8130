"""LiveCodeBench and everything in its format: files of rows → ProblemSet.

Files are read row by row, and the tests of a row are unpacked only if its contest date is asked for: the official
files are gigabytes, of which a date window needs a few percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from sandbox import Limits, TestCase
from sdpo.envs.code.lcb_files import find_files
from sdpo.envs.code.lcb_rows import (
    FIELDS,
    MAX_TEST_BYTES,
    METADATA_KEYS,
    ROWS,
    check_functional,
    decode_metadata,
    decode_tests,
)
from sdpo.envs.code.question import Question
from sdpo.envs.code.question_files import questions_of
from sdpo.envs.code.splits import ProblemSet, make_problem_set
from sdpo.envs.code.window import V6_QUESTIONS, V6_WINDOW, DateWindow, contest_moment
from sdpo.envs.report import DataReport
from sdpo.envs.rows.files import BadRow, Progress, Row
from sdpo.errors import UserError

# Ids or titles of problems that no comparison of outputs can grade: LiveCodeBench's ERRATA.md, and by the same
# criteria abc343_a, arc185_c and arc189_a.
UNGRADABLE = {
    **dict.fromkeys(("abc337_e", "abc355_e"), "interactive"),
    **dict.fromkeys(
        ("abc311_c", "abc326_d", "abc327_b", "abc333_e", "abc343_a", "abc343_e", "abc362_c", "arc185_c")
        + ("find-words-containing-character", "find-the-peaks", "generate-binary-strings-without-adjacent-zeros"),
        "several outputs are right",
    ),
    **dict.fromkeys(("abc350_c", "arc189_a"), "wrong tests"),
}


def load_livecodebench(
    path: str | Path | None = None,
    *,
    test_split: str,
    problem_split: str,
    max_bad_rows: float,
    release: str | None = None,
    window: DateWindow | tuple[date | None, date | None] | None = None,
    seed: int = 0,
    held_out_fraction: float | None = None,
    exclude_ungradable: bool = False,
    limits: Limits | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> ProblemSet:
    """Problems of LiveCodeBench, or of anything written in its format.

    `path` is a file of rows or a folder of them; without it the official files come from the Hugging Face
    hub.  `release` names official files (`lcb_files.release_files`), `window` the contest dates [from, to).
    `max_bad_rows` is the fraction of rows that may be unusable; a single one never stops a run, unless the fraction is
    0.  The splits are those of `splits`.  UserError for whatever the user can mend; bad rows that did not stop the run
    are in the report.
    """
    if window is not None and not isinstance(window, DateWindow):
        window = DateWindow(*window)
    files = find_files(path, release)
    report = DataReport(files=tuple(file.name for file in files))
    questions = list(read_questions(files, window=window, report=report, progress=progress))
    report.check_bad_rows(max_bad_rows, "fetch the files again")
    if not questions:
        raise UserError(
            f"None of the {report.rows} rows of {', '.join(report.files)} can be used"
            + (f" with contest dates in {window}; choose another data.window or data.release." if window else ".")
        )
    if report.bad_rows and test_split != "public-private":
        report.notes.append("Rows were skipped: the random halves of the tests after them are not the published ones.")
    if window == V6_WINDOW and len(questions) != V6_QUESTIONS:
        report.notes.append(f"The published v6 window has {V6_QUESTIONS} questions; these files have {len(questions)}.")
    return make_problem_set(
        questions,
        name=name or _name(path, release, window),
        test_split=test_split,
        problem_split=problem_split,
        seed=seed,
        held_out_fraction=held_out_fraction,
        exclude=_ungradable(questions) if exclude_ungradable else None,
        limits=limits,
        report=report,
    )


def read_questions(
    files: Sequence[Path],
    *,
    window: DateWindow | None = None,
    report: DataReport,
    progress: Progress | None = None,
    max_test_bytes: int = MAX_TEST_BYTES,
) -> Iterator[Question]:
    """The usable rows of the files in order, as questions; `report` receives counts and bad rows."""

    def question(row: Row, number: int) -> Question | None:
        if window is not None and _moment(row) not in window:
            report.outside_window += 1
            return None
        return _question(row, max_test_bytes)

    return questions_of(files, ROWS, question, report, progress)


def _question(row: dict[str, str], max_test_bytes: int) -> Question:
    for name in FIELDS:
        if not isinstance(row.get(name), str):
            raise BadRow(f"{name} is missing" if name not in row else f"{name} is not a string")
    for name in ("question_id", "question_content"):
        if not row[name].strip():
            raise BadRow(f"{name} is empty")
    _moment(row)
    metadata = decode_metadata(row["metadata"])
    function = metadata.get("func_name")
    public, private = (
        decode_tests(row[name], max_bytes=max_test_bytes) for name in ("public_test_cases", "private_test_cases")
    )
    if not public and not private:
        raise BadRow("there are no tests")
    if function:
        check_functional([*public, *private])
    kind: Literal["stdin", "functional"] = "functional" if function else "stdin"
    public_tests, private_tests = (
        tuple(TestCase(given, wanted, kind, function) for given, wanted in pairs) for pairs in (public, private)
    )
    return Question(
        id=row["question_id"],
        statement=row["question_content"],
        public_tests=public_tests,
        private_tests=private_tests,
        starter_code=row["starter_code"],
        title=row["question_title"],
        difficulty=row["difficulty"],
        platform=row["platform"],
        contest_date=row["contest_date"],
        files=metadata.get("files", {}),
        solution=metadata.get("solution"),
        mark=metadata.get("split"),
        columns=_columns(row, metadata),
    )


def _columns(row: dict[str, Any], metadata: dict[str, Any]) -> dict[str, str]:
    """Texts of the row that the format gives no meaning: further keys of the row, and of its metadata."""
    further = {**row, **{key: value for key, value in metadata.items() if key not in METADATA_KEYS}}
    return {key: value for key, value in further.items() if key not in FIELDS and isinstance(value, str)}


def _moment(row: dict[str, str]) -> datetime:
    try:
        return contest_moment(row["contest_date"])
    except KeyError:
        raise BadRow("contest_date is missing") from None
    except (TypeError, ValueError):
        raise BadRow(f"contest_date {row['contest_date']!r} is not an ISO 8601 date") from None


def _ungradable(questions: Sequence[Question]) -> dict[str, str]:
    reasons = {question.id: UNGRADABLE.get(question.id) or UNGRADABLE.get(question.title) for question in questions}
    return {problem: reason for problem, reason in reasons.items() if reason}


def _name(path: str | Path | None, release: str | None, window: DateWindow | None) -> str:
    source = Path(path).expanduser().resolve().stem if path is not None else "livecodebench"
    return " ".join([source, *([release] if release else []), *([str(window)] if window else [])])
