"""A question as its source gives it: public and private tests, before a split decides what each test is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox import Limits, TestCase
from sdpo.envs.code.problem import Problem


@dataclass(frozen=True)
class Question:
    """`mark` is the source's own say on the problem split: "train", "heldout" or None."""

    id: str
    statement: str
    public_tests: tuple[TestCase, ...]
    private_tests: tuple[TestCase, ...]
    starter_code: str = ""
    title: str = ""
    difficulty: str = ""
    platform: str = ""
    contest_date: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    solution: str | None = None
    mark: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def problem(self, training: tuple[TestCase, ...], evaluation: tuple[TestCase, ...], limits: Limits) -> Problem:
        """The Problem that trains on `training` and is measured on `evaluation`."""
        return Problem(
            id=self.id,
            statement=self.statement,
            training_tests=training,
            evaluation_tests=evaluation,
            starter_code=self.starter_code,
            title=self.title,
            difficulty=self.difficulty,
            platform=self.platform,
            contest_date=self.contest_date,
            limits=limits,
            files=self.files,
            solution=self.solution,
            columns=self.columns,
        )

    @property
    def asked(self) -> tuple[object, ...]:
        """Everything that the policy and its program are given: two questions equal in this are one and the same."""
        return " ".join(self.statement.split()), self.starter_code.strip(), tuple(sorted(self.files.items()))
