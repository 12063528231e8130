r"""Mathematics: the last \boxed{} of a response against the right answer, compared by `math-verify`.

Rows are read as they are published:

    GSM8K           question, answer (a solution, and behind #### the number)
    MATH, MATH-500  problem, solution, answer (else the last \boxed{} of the solution), level, subject or type
    DAPO, AIME, …   prompt or problem, answer (or `data.columns.answer`, reward_model.ground_truth say)

Feedback names what is wrong with the response, never the right answer.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from sdpo.config.schema import Recipe
from sdpo.config.sections import ColumnSettings
from sdpo.envs.base import Dataset, Inert, Progress, Purpose
from sdpo.envs.boxed import MAX_ANSWER, last_boxed
from sdpo.envs.judged import JudgedEnvironment, JudgedSettings
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, BadRow, Row, RowKind, cell, check_rows, load_rows
from sdpo.envs.rows.columns import make_task
from sdpo.envs.sanitize import sanitize_inline
from sdpo.errors import UserError
from sdpo.types import Outcome, Task, Turn

ROWS = RowKind("mathematical problems with their answers", ("question", "problem", "answer", "solution"))
REQUEST = "Please reason step by step, and put your final answer within \\boxed{}."
INSTALL = "pip install 'sdpo[math]'"
ANSWER_MARK = "####"  # GSM8K's


class MathSettings(JudgedSettings):
    boxed: bool = Field(
        True,
        description="the answer is the last \\boxed{}, for which prompts ask; false: whatever math-verify finds at the "
        "end of the response, for rows that ask for another form",
    )


class MathEnvironment(JudgedEnvironment):
    """Reward 1 where the answers are equal, however they are written."""

    Settings = MathSettings
    reads = ROW_OPTIONS
    inert: ClassVar[Inert] = ROW_INERT
    judge = "sdpo.envs.math_judge:judge"

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        check_rows(recipe)

    def load(self, progress: Progress | None = None) -> Dataset:
        if importlib.util.find_spec("math_verify") is None:
            raise UserError(
                f"environment.kind=math compares answers with math-verify, which is not installed. {INSTALL}."
            )
        return load_rows(self.recipe, self._task, kind=ROWS, progress=progress)

    def _task(self, row: Row, columns: ColumnSettings) -> Task:
        return math_task(row, columns, self.settings.boxed)

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        reply = await self.ask(task.content.right, turn.answer, self.settings.boxed)
        if reply.kind == "value":
            return outcome_of(reply.value["label"], reply.value.get("given", ""), turn.truncated)
        label = "too slow" if reply.kind == "timeout" else "not comparable"
        feedback = "Your answer cannot be compared with the right one. Give it in its simplest form."
        return Outcome(0.0, feedback=feedback, label=label, details={"error": reply.message})


@dataclass(frozen=True)
class Content:
    right: str


# ------------------------------------------------------------------------------------------------------ rows


def math_task(row: Row, columns: ColumnSettings, boxed: bool = True) -> Task:
    """Raises BadRow for a row without a problem, or without an answer."""
    asked = row.get("problem") if columns.prompt is None else None
    solution = cell(row, columns, "solution")
    given = cell(row, columns, "answer")
    if given is None and isinstance(solution, str):
        given = last_boxed(solution)
        if given is None:
            raise BadRow("there is no answer, and no \\boxed{} in its solution")
    right, text = _right(given)
    plain = {key: value for key, value in row.items() if not (key == "problem" and asked is not None)}
    unnamed = columns.model_copy(update={"answer": None, "difficulty": None, "solution": None})
    task = make_task(plain if asked is None else {**plain, "prompt": asked}, unnamed)
    messages = [dict(message) for message in task.messages]
    if boxed and not any("boxed" in message["content"] for message in messages):
        messages[-1]["content"] += f"\n\n{REQUEST}"
    level = cell(row, columns, "difficulty") or row.get("level")
    shown = solution if isinstance(solution, str) and solution.strip() else text
    if shown is None or "boxed" not in shown:
        shown = f"{shown}\n\\boxed{{{right}}}" if shown else f"\\boxed{{{right}}}"
    return Task(task.id, tuple(messages), Content(right), shown, task.columns, str(level or ""))


def _right(given: Any) -> tuple[str, str | None]:
    """The right answer, and the solution that stands before it."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise BadRow(f"its answer is {'missing' if given is None else f'a {type(given).__name__}, not a text'}")
    text = str(given)
    before, mark, right = text.rpartition(ANSWER_MARK)
    right = right.strip().replace(",", "") if mark else text.strip()
    right = right if (inner := last_boxed(right)) is None else inner
    if not right or len(right) > MAX_ANSWER:
        raise BadRow(f"its answer is {'empty' if not right else f'longer than {MAX_ANSWER} characters'}")
    return right, re.sub(r"<<[^>]*>>", "", before).strip() if mark else None  # GSM8K's calculator marks


def outcome_of(label: str, given: str, truncated: bool = False) -> Outcome:
    """Reward and words for a verdict (`sdpo.envs.math_judge`) on the answer `given`."""
    shown = sanitize_inline(given, 200)
    words = {
        "wrong answer": f"Your answer {shown} is wrong.",
        "unreadable": f"Your answer cannot be read as mathematics: {shown}",
        "no answer": "Your response was cut off before it came to an answer; be shorter."
        if truncated
        else "There is no final answer in your response. Put it within \\boxed{}.",
    }
    if label == "right":
        return Outcome(1.0, True, label=label, details={"answer": given})
    return Outcome(0.0, feedback=words[label], label=label, details={"answer": given})
