"""A programming problem with its tests, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sandbox import Limits, TestCase
from sdpo.envs.code.completion import Program, Stub
from sdpo.types import Task

Style = Literal["published", "compact"]

_LCB_INSTRUCTION = (
    "You are a coding expert. You will be given a coding problem, and you need to write a correct Python program that "
    "matches the specification and passes all tests. The time limit is 1 second. You may start by outlining your "
    "thought process. In the end, please provide the complete code in a code block enclosed with ``` ```."
)
# Of a script and of a function.  `published` is what SDPO used on LiveCodeBench (arXiv 2601.20802, released code),
# `compact` this project's own short form for the bundled policy, whose vocabulary has a few hundred words.
QUESTIONS: Mapping[Style, tuple[str, str]] = {
    "published": (
        _LCB_INSTRUCTION + "\n\n{statement}",
        _LCB_INSTRUCTION + "\n\n{statement}\n\nYour solution should have the following signature: "
        "```python\n{starter_code}\n```",
    ),
    "compact": ("{statement}", "{statement}\n{starter_code}"),
}


@dataclass(frozen=True)
class Problem:
    """One programming problem, whatever its source.

    `training_tests` give the reward and the feedback; `evaluation_tests` measure.  Which test is in which of the two is
    decided by the test split of the recipe (`sdpo.envs.code.splits`), and the name of that split stands in every
    result.
    """

    id: str
    statement: str
    training_tests: tuple[TestCase, ...]
    evaluation_tests: tuple[TestCase, ...]
    starter_code: str = ""
    title: str = ""
    difficulty: str = ""
    platform: str = ""
    contest_date: str = ""  # ISO 8601
    limits: Limits = field(default_factory=Limits)
    files: Mapping[str, str] = field(default_factory=dict)  # modules that the program may import: name → source
    solution: str | None = None  # a reference program, where the source has one
    columns: Mapping[str, str] = field(default_factory=dict)  # further texts of its row
    wording: str = ""  # the whole question as its source asks it; empty: by `QUESTIONS`
    stub: Stub | None = None  # the beginning of a program that a response may complete

    def program(self, code: str | None) -> Program:
        """The program that is judged where a response holds `code`."""
        return Program(code) if self.stub is None or code is None else self.stub.completed(code)

    @property
    def functional(self) -> bool:
        """Whether a function is called (LeetCode style) rather than a script run on stdin."""
        return any(test.testtype == "functional" for test in (*self.training_tests, *self.evaluation_tests)[:1])

    def task(self, style: Style = "published") -> Task:
        """The problem as the loop sees it."""
        script, function = QUESTIONS[style]
        question = function if self.functional or self.starter_code else script
        content = question.format(statement=self.statement, starter_code=self.starter_code)
        if self.wording and style == "published":
            content = self.wording
        return Task(
            id=self.id,
            messages=({"role": "user", "content": content},),
            content=self,
            solution=None if self.solution is None else fenced(self.solution),
            columns=self.columns,
            difficulty=self.difficulty,
        )


def fenced(program: str) -> str:
    """A program as a response gives it."""
    return f"```python\n{program}\n```"
