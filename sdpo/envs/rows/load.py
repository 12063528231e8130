"""From rows to a `Dataset`: tasks to train on, tasks to evaluate on, and a report of every row that is neither."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from sdpo.config import registry
from sdpo.config.schema import Recipe
from sdpo.config.sections import ColumnSettings
from sdpo.envs.base import Dataset, Inert, Progress
from sdpo.envs.report import BadRowReport, DataReport
from sdpo.envs.rows.columns import held_out_mark, make_task
from sdpo.envs.rows.files import ROWS, BadRow, Row, RowKind
from sdpo.envs.rows.source import Source, evaluation_source, training_source
from sdpo.errors import UserError
from sdpo.types import Task

TaskMaker = Callable[[Row, ColumnSettings], Task]  # raises BadRow for a row that is no task

# What an environment that reads rows reads of the section `data`, and which of it does nothing beside other settings.
ROW_OPTIONS = frozenset(
    f"data.{option}"
    for option in ("source", "path", "subset", "split", "revision", "evaluation_path", "evaluation_split", "columns")
    + ("problem_split", "held_out_fraction", "max_bad_rows")
)


def _own_evaluation(recipe: Recipe) -> bool:
    return recipe.data.evaluation_path is not None or recipe.data.evaluation_split is not None


ROW_INERT: Inert = (
    ("data.held_out_fraction", lambda r: r.data.problem_split != "hash", "unless data.problem_split=hash"),
    (
        "data.problem_split",
        lambda r: r.data.problem_split != "none" and _own_evaluation(r),
        "beside data.evaluation_path or data.evaluation_split",
    ),
    (
        "evaluation.training_problems",
        lambda r: r.data.problem_split == "none" and not _own_evaluation(r),
        "unless problems are held out",
    ),
)


def check_rows(recipe: Recipe) -> None:
    """For `Environment.check`: raises ValueError where the section `data` contradicts itself."""
    data = recipe.data
    if data.source is not None and not registry.is_reference(data.source):
        raise ValueError(
            f"data.source={data.source} is not what environment.kind={recipe.environment.kind} reads; give data.path, "
            "or a function of your own as module:function"
        )
    if data.source is not None and data.path is not None:
        raise ValueError("data.source and data.path both say where rows come from; remove one of the two")
    if data.source is None and data.path is None:
        raise ValueError(
            "the recipe does not say where its rows are; set data.path to a file, a folder or a hub name, or "
            "data.source to module:function"
        )
    unused = [name for name in ("subset", "split", "revision") if getattr(data, name) is not None]
    if data.path is None and (unused or data.evaluation_split):
        named = ", ".join(
            f"data.{name}" for name in (*unused, *(["evaluation_split"] if data.evaluation_split else []))
        )
        raise ValueError(f"{named} has no effect with data.source, whose rows are a function's")


def load_rows(
    recipe: Recipe,
    make: TaskMaker = make_task,
    *,
    source: Source | None = None,
    kind: RowKind = ROWS,
    progress: Progress | None = None,
) -> Dataset:
    """The tasks that the section `data` describes.

    source: rows of the environment's own; None: those of `data.source` or `data.path`.
    make: a row's task; where its id is empty, it is named after the row's file and number.  `data.problem_split` hash
    goes by what is asked, so that the same question never stands on both sides, and moves no task when others come or
    go.  Raises UserError for what the user can mend, more wrong rows than `data.max_bad_rows` among it.
    """
    data, report = recipe.data, DataReport()
    source = source or training_source(data, progress, kind)
    tasks, marks = _read(source, recipe, make, report)
    apart = evaluation_source(data, progress, kind)
    if apart is not None:
        others, _ = _read(apart, recipe, make, report)
        train, evaluation = tasks, _unseen(others, tasks, report)
    elif data.problem_split == "none":
        train = evaluation = tasks
    else:
        held = (
            marks
            if data.problem_split == "marked"
            else [_drawn(task, recipe.seed, data.held_out_fraction) for task in tasks]
        )
        train = [task for task, out in zip(tasks, held, strict=True) if not out]
        evaluation = _unseen([task for task, out in zip(tasks, held, strict=True) if out], train, report)
    report.check_bad_rows(data.max_bad_rows, "set data.columns to the right columns", one_must_be_usable=True)
    split = "own rows" if apart is not None else data.problem_split
    for side, what in ((train, "to train on"), (evaluation, "to evaluate on")):
        if not side:
            raise UserError(_nothing_left(what, source.name if apart is None else apart.name, split, tasks, report))
    report.notes += filter(None, [source.note if apart is None and data.problem_split == "none" else ""])
    return Dataset(train, evaluation, source.name, problem_split=split, report=report)


def _read(source: Source, recipe: Recipe, make: TaskMaker, report: DataReport) -> tuple[list[Task], list[bool]]:
    """The tasks, and what their rows say of the side that they belong to (all False where nobody asks)."""
    report.files += source.files
    marked = recipe.data.problem_split == "marked"
    tasks, marks, seen = [], [], dict[str, str]()
    for given in source.rows:
        report.rows += 1
        try:
            if isinstance(given.row, BadRow):
                raise given.row
            if isinstance(given.row, Task):
                task, mark = given.row, bool(marked and held_out_mark(dict(given.row.columns), recipe.data.columns))
            else:
                task, mark = (
                    make(given.row, recipe.data.columns),
                    marked and held_out_mark(given.row, recipe.data.columns),
                )
            task = task if task.id else replace(task, id=f"{source.name}-{given.number}")
            if task.id in seen:
                raise BadRow(f"its id {task.id} was already in {seen[task.id]}")
        except BadRow as reason:
            report.bad_rows.append(BadRowReport(given.file, given.number, str(reason), given.unit))
        else:
            seen[task.id] = f"{given.file}, {given.unit} {given.number}"
            tasks.append(task)
            marks.append(mark)
    return tasks, marks


def _asked(task: Task) -> str:
    return json.dumps([dict(message) for message in task.messages], sort_keys=True)


def _drawn(task: Task, seed: int, fraction: float) -> bool:
    """Whether the hash of the seed and of what is asked holds the task out."""
    digest = hashlib.sha256(f"{seed}\0{_asked(task)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _unseen(evaluation: Sequence[Task], train: Sequence[Task], report: DataReport) -> list[Task]:
    """Those whose question is not trained on, by ids that no task to train on has."""
    trained, ids = {_asked(task) for task in train}, {task.id for task in train}
    left = []
    for task in evaluation:
        if _asked(task) in trained:
            report.left_out[task.id] = "to evaluate on, but the same question is trained on"
        else:
            left.append(replace(task, id=f"evaluation-{task.id}") if task.id in ids else task)
    return left


def _nothing_left(what: str, name: str, split: str, tasks: Sequence[Task], report: DataReport) -> str:
    if not report.rows:
        return f"{name} holds no rows."
    why = f" ({report.lines()[-1]})" if report.left_out else ""
    return (
        f"No task of {name} is left {what} with problem_split={split}: {len(tasks)} tasks{why}.  Choose another "
        "data.problem_split or data.held_out_fraction, or give more rows."
    )
