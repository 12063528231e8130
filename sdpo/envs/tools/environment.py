"""Tool calls: which functions are called, with which arguments; in one answer, or against simulated services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.config.sections import ColumnSettings
from sdpo.envs.base import Dataset, Inert, Progress, Purpose
from sdpo.envs.judged import JudgedEnvironment, JudgedSettings
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, Row, RowKind, check_rows, load_rows
from sdpo.envs.sanitize import sanitize_inline
from sdpo.envs.tools import leaderboard, toolalpaca
from sdpo.envs.tools.bfcl import (
    SINGLE_TURN,
    Category,
    Conversation,
    FunctionCalls,
    bfcl_task,
    is_conversation,
    language_of,
    package_source,
)
from sdpo.envs.tools.calls import Form, Problem, Unreadable, read_calls
from sdpo.envs.tools.services import Replay
from sdpo.errors import UserError
from sdpo.types import Outcome, Task, Turn

SOURCE = "bfcl"  # what `data.source` calls the rows of the package bfcl-eval
WHERE = (
    "The rows of arXiv 2601.20802 come with its code (github.com/lasgroup/SDPO); those of the Berkeley "
    "Function-Calling Leaderboard need no download: data.path=null data.source=bfcl."
)
MAX_FEEDBACK = 2000  # characters
ROWS = RowKind("rows of tool calls (prompt and golden_answer, or question, function and ground_truth)")


class ToolsSettings(JudgedSettings):
    form: Form | None = Field(
        None,
        description="how calls are written: action (`Action:` and `Action Input:` lines), json, or python; null: "
        "python for rows of the leaderboard, else action",
    )
    categories: tuple[Category, ...] = Field(
        SINGLE_TURN,
        min_length=1,
        description="data.source=bfcl: which of the leaderboard's; the default are those in Python with one answer",
    )


class ToolsEnvironment(JudgedEnvironment):
    """Right is what the row says, whatever the order of calls and arguments; what is wrong is told in words.

    Rows are those of the Berkeley Function-Calling Leaderboard (`data.source=bfcl`, or a file in its format), or of
    ToolAlpaca's form.  Conversations are the leaderboard's too: each answer is one turn, a service's results or the
    user's next message are the reply to it.
    """

    Settings = ToolsSettings
    judge = "sdpo.envs.tools.services:judge"
    reads = ROW_OPTIONS
    inert: ClassVar[Inert] = (
        *ROW_INERT,
        ("environment.workers", lambda r: not _talks(r), "without conversations"),
        ("environment.time_limit_s", lambda r: not _talks(r), "without conversations"),
        ("environment.categories", lambda r: r.data.source != SOURCE, f"unless data.source={SOURCE}"),
    )

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        settings = recipe.environment
        if recipe.data.source != SOURCE:
            check_rows(recipe)
            return
        assert isinstance(settings, ToolsSettings)
        if settings.form == "action":
            raise ValueError("environment.form=action is not one of the leaderboard's; set python or json")
        if settings.form != "json" and (texts := [c for c in settings.categories if language_of(c) != "python"]):
            raise ValueError(
                f"{', '.join(texts)}: calls in other languages are read as JSON; set environment.form=json"
            )
        if settings.turns == 1 and (several := [c for c in settings.categories if is_conversation(c)]):
            raise ValueError(
                f"{', '.join(several)}: these conversations take several turns; set environment.turns (a message of "
                "the user takes two or more)"
            )

    def __enter__(self) -> Self:
        """Only conversations run in worker processes."""
        return super().__enter__() if _talks(self.recipe) else self

    def load(self, progress: Progress | None = None) -> Dataset:
        if self.recipe.data.source == SOURCE:
            source = package_source(self.settings.categories)
            return load_rows(self.recipe, self._task, source=source, progress=progress)
        try:
            return load_rows(self.recipe, self._task, kind=ROWS, progress=progress)
        except UserError as error:
            path = self.recipe.data.path
            if path is None or Path(locate(path)).expanduser().exists():
                raise
            raise UserError(f"{error}  {WHERE}") from error

    def _task(self, row: Row, columns: ColumnSettings) -> Task:
        if "function" in row and "question" in row:
            return bfcl_task(row, self._form_of_leaderboard)
        return toolalpaca.toolalpaca_task(row, columns, self.settings.form or "action")

    @property
    def _form_of_leaderboard(self) -> Form:
        return "json" if self.settings.form == "json" else "python"

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        if isinstance(task.content, Conversation):
            return await self.respond(task, [turn], purpose)
        form = self._form_of_leaderboard if isinstance(task.content, FunctionCalls) else self.settings.form or "action"
        problem = what_is_wrong(turn.answer, task.content, form)
        return Outcome(1.0, True, label="right") if problem is None else _refused(problem)

    async def respond(self, task: Task, turns: Sequence[Turn], purpose: Purpose) -> Outcome:
        if not isinstance(task.content, Conversation):
            return await super().respond(task, turns, purpose)
        content, form = task.content, self._form_of_leaderboard
        reply = await self.ask(dict(content.entry), content.wanted, [turn.answer for turn in turns], form)
        if reply.kind != "value":
            label = "too slow" if reply.kind == "timeout" else "crash"
            feedback = "One of your calls takes too long." if reply.kind == "timeout" else None
            return Outcome(0.0, feedback=feedback, label=label, details={"error": reply.message})
        return conversation_outcome(Replay(**reply.value), content, len(turns) >= self.recipe.turns(purpose))


def _talks(recipe: Recipe) -> bool:
    settings = recipe.environment
    return (
        recipe.data.source == SOURCE
        and isinstance(settings, ToolsSettings)
        and any(map(is_conversation, settings.categories))
    )


def what_is_wrong(answer: str, content: FunctionCalls | toolalpaca.GoldenCalls, form: Form) -> Problem | None:
    """None where the answer is right."""
    any_call = isinstance(content, FunctionCalls) and content.any_call
    try:
        calls = read_calls(answer, form)
    except Unreadable as error:
        if isinstance(content, toolalpaca.GoldenCalls) and not answer.strip():
            return Problem("no answer", "Your response is empty.")  # the leaderboard takes it for one without calls
        nothing_wanted = not content.wanted and not any_call
        return None if nothing_wanted else Problem("unreadable", str(error))
    if isinstance(content, toolalpaca.GoldenCalls):
        return toolalpaca.what_is_wrong(calls, content)
    if any_call:
        return None if calls else Problem("no call", "One of the functions fits the request; call it.")
    if not content.wanted:
        words = "None of the functions fits the request; say so instead of calling one."
        return Problem("a call too many", words) if calls else None
    return leaderboard.what_is_wrong(calls, content.wanted, content.functions, content.language)


def _refused(problem: Problem) -> Outcome:
    return Outcome(0.0, feedback=sanitize_inline(problem.words, MAX_FEEDBACK), label=problem.label)


def conversation_outcome(now: Replay, content: Conversation, last_turn: bool) -> Outcome:
    """What an answer of a conversation was worth: 1 for the one that ends it as wanted; errors are the feedback."""
    done = {"messages_done": now.done}
    if now.over:
        if now.problem is None:
            return Outcome(1.0, True, label="right", details=done)
        return Outcome(0.0, feedback=now.problem, label="wrong state", details=done)
    errors = [result for result in now.results if _is_error(result)]
    told = sanitize_inline("\n".join(errors), MAX_FEEDBACK) if errors else None
    if last_turn:
        words = "The conversation came to its longest before all that the user asked for was done."
        return Outcome(0.0, feedback=f"{told}\n{words}" if told else words, label="unfinished", details=done)
    if now.message is not None:
        return Outcome(0.0, label="next message", reply=content.messages[now.message], details=done)
    reply = tuple({"role": "tool", "content": result} for result in now.results)
    return Outcome(0.0, feedback=told, label="error" if errors else "call", reply=reply, details=done)


def _is_error(result: str) -> bool:
    return result.startswith(("Error during execution", '{"error"'))
