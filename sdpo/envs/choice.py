"""Multiple choice, in the form in which arXiv 2601.20802 §3 asks SciKnowEval's questions.

    question   text
    choices    {"text": […], "label": ["A", …]}, or a list of texts (labelled A, B, …), or {"A": text, …}
    answerKey  the label that is right (or `answer`, which may be a text of the choices or its number from 0)

The answer stands between <answer> tags and is one label.  Feedback says what is wrong with the form, or that the choice
is wrong; never which one is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from sdpo.config.schema import Recipe
from sdpo.config.sections import ColumnSettings, EnvironmentSettings
from sdpo.envs.base import Dataset, Environment, Inert, Progress, Purpose
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, BadRow, Row, RowKind, cell, check_rows, load_rows, needed
from sdpo.envs.rows.source import training_source
from sdpo.envs.sanitize import sanitize_inline
from sdpo.types import Outcome, Task, Turn

ROWS = RowKind("questions with choices and the label of the right one", ("question", "choices", "answerKey"))
INSTRUCTIONS = (  # this project's words for the published form
    "You are given a question and several options, of which exactly one is right. First reason about them, then name "
    "your choice, in this form:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n"
    "Between the answer tags stands the letter of your option and nothing else."
)
FORM = "End your response with <answer>, the letter of one option and nothing else, and </answer>."


@dataclass(frozen=True)
class Question:
    choices: Mapping[str, str]  # texts by label
    right: str


class ChoiceSettings(EnvironmentSettings):
    keep: dict[str, tuple[str, ...]] = Field(
        {},
        description="rows that are questions: those whose column holds one of these values (details.level reaches into "
        "an object); {}: all",
    )


class ChoiceEnvironment(Environment):
    """One of several options is right."""

    Settings = ChoiceSettings
    reads = ROW_OPTIONS
    inert: ClassVar[Inert] = ROW_INERT

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        check_rows(recipe)
        assert isinstance(recipe.environment, ChoiceSettings)
        if recipe.environment.keep and (recipe.data.evaluation_path or recipe.data.evaluation_split):
            raise ValueError("environment.keep picks among the rows of data.path; hold rows out by data.problem_split")

    def load(self, progress: Progress | None = None) -> Dataset:
        source = training_source(self.recipe.data, progress, ROWS)
        if keep := self.settings.keep:
            rows = (given for given in source.rows if not isinstance(given.row, dict) or _kept(given.row, keep))
            source = replace(source, rows=rows)
        return load_rows(self.recipe, choice_task, source=source, kind=ROWS, progress=progress)

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        return grade_choice(task.content, turn.answer)


def _kept(row: Row, keep: Mapping[str, Sequence[str]]) -> bool:
    return all(cell(row, ColumnSettings(id=name), "id") in values for name, values in keep.items())


def choice_task(row: Row, columns: ColumnSettings) -> Task:
    """Raises BadRow for a row that is no such question."""
    asked = needed(row, columns, "prompt")
    if not isinstance(asked, str) or not asked.strip():
        raise BadRow("its question is not text")
    choices = _choices(row.get("choices"))
    key = cell(row, columns, "answer") if columns.answer or "answerKey" not in row else row["answerKey"]
    right = _right(key, choices)
    options = "\n".join(f"{label}: {text}" for label, text in choices.items())
    messages = (
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": f"{asked}\n\n{options}\nPlease reason step by step."},
    )
    details = row.get("details")
    level = details.get("level") if isinstance(details, Mapping) else None
    return Task(
        id=str(cell(row, columns, "id") or ""),
        messages=messages,
        content=Question(choices, right),
        solution=f"<answer>\n{right}\n</answer>",
        columns={name: value for name, value in row.items() if isinstance(value, str) and value},
        difficulty=str(cell(row, columns, "difficulty") or level or row.get("domain") or ""),
    )


def _choices(given: Any) -> dict[str, str]:
    if isinstance(given, Mapping) and {"text", "label"} <= given.keys():
        labels, texts = given["label"], given["text"]
    elif isinstance(given, Mapping):
        labels, texts = list(given), list(given.values())
    elif isinstance(given, Sequence) and not isinstance(given, str):
        texts = [item.get("text") if isinstance(item, Mapping) else item for item in given]
        labels = [
            item["label"] if isinstance(item, Mapping) and "label" in item else chr(ord("A") + place)
            for place, item in enumerate(given)
        ]
    else:
        raise BadRow("there is no column choices with texts and labels")
    if not isinstance(labels, Sequence) or not isinstance(texts, Sequence) or len(labels) != len(texts):
        raise BadRow("choices does not hold as many texts as labels")
    if not all(isinstance(part, str) for part in (*labels, *texts)):
        raise BadRow("a text or a label of choices is not text")
    choices = {str(label).strip().upper(): str(text) for label, text in zip(labels, texts, strict=True)}
    if len(choices) < len(labels) or len(choices) < 2:
        raise BadRow("choices holds fewer than two options, or a label twice")
    return choices


def _right(key: Any, choices: Mapping[str, str]) -> str:
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(choices):
        return list(choices)[key]
    if isinstance(key, str):
        if key.strip().upper() in choices:
            return key.strip().upper()
        if matches := [label for label, text in choices.items() if text == key]:
            return matches[0]
    raise BadRow(f"its answer is {key!r:.40}, none of the labels {', '.join(choices)}")


def grade_choice(question: Question, answer: str) -> Outcome:
    """Reward 1 for the right label behind the last <answer>, up to </answer>, as the published code finds it."""
    given = answer.split("<answer>")[-1].split("</answer>")[0].strip()
    if given.upper() == question.right:
        return Outcome(1.0, True, label="right")
    if given.upper() in question.choices:
        return Outcome(0.0, feedback=f"Your choice {given.upper()} is wrong.", label="wrong option")
    if "<answer>" not in answer:
        return Outcome(0.0, feedback=f"There are no <answer> tags in your response. {FORM}", label="no answer")
    said = f"Between your answer tags stands none of {', '.join(question.choices)}: {sanitize_inline(given, 80)}"
    return Outcome(0.0, feedback=f"{said}\n{FORM}", label="no option")
