"""A question as its source gives it: public and private tests, before a split decides what each test is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sandbox import Limits, TestCase
from sdpo.envs.code.completion import Stub
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
    setup: str = ""  # of test code: what stands before it
    wording: str = ""
    stub: Stub | None = None

    def problem(self, training: tuple[TestCase, ...], evaluation: tuple[TestCase, ...], limits: Limits) -> Problem:
        """The Problem that trains on `training` and is measured on `evaluation`."""
        return Problem(
            id=self.id,
            statement=self.statement,
            training_tests=self._together(training),
            evaluation_tests=self._together(evaluation),
            starter_code=self.starter_code,
            title=self.title,
            difficulty=self.difficulty,
            platform=self.platform,
            contest_date=self.contest_date,
            limits=limits,
            files=self.files,
            solution=self.solution,
            columns=self.columns,
            wording=self.wording,
            stub=self.stub,
        )

    def _together(self, tests: tuple[TestCase, ...]) -> tuple[TestCase, ...]:
        """Pieces of test code, which a split has chosen, as one test behind their common setup."""
        if not tests or tests[0].testtype != "assertions":
            return tests
        pieces = dict.fromkeys(test.input for test in tests)
        return (replace(tests[0], input="\n".join([*([self.setup] if self.setup else []), *pieces])),)

    @property
    def asked(self) -> tuple[object, ...]:
        """Everything that the policy and its program are given: two questions equal in this are one and the same."""
        return " ".join(self.statement.split()), self.starter_code.strip(), tuple(sorted(self.files.items()))
