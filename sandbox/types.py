"""What goes into the sandbox (tests, limits, jobs) and what comes out (judgements with one record per test)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from .assertions import problem_with
from .errors import BadTests

TestType = Literal["stdin", "functional", "assertions"]
Stop = Literal["first_failure", "all"]
_LARGEST = 10**9  # of any limit, in its unit: the kernel's own numbers end somewhere


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong answer"
    RUNTIME_ERROR = "runtime error"
    TIME_LIMIT = "time limit"
    MEMORY_LIMIT = "memory limit"
    OUTPUT_LIMIT = "output limit"
    NO_CODE = "no code"
    COMPILE_ERROR = "compile error"
    SANDBOX_ERROR = "sandbox error"


@dataclass(frozen=True)
class TestCase:
    """One test: in LiveCodeBench's form, or test code.

    stdin: `input` is fed to the script, `output` is compared with what it prints.  functional: `input` holds one JSON
    value per line, the positional arguments of `fn_name`; `output` is one JSON value.  assertions: `input` is test
    code, statements at the top level and what pytest would collect; names that it does not define are the program's,
    and so are those in `fn_name` (parted by spaces) although Python has them too; `output` is empty.
    """

    __test__ = False  # not a test class, whatever its name suggests to pytest

    input: str
    output: str
    testtype: TestType = "stdin"
    fn_name: str | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of one test.

    `wall_time_s` is only a backstop for programs that wait; None: 2 × cpu_time_s + 2.  Time in which the program was
    ready to run and had no core does not count, but ten times `wall_time_s` is the end whatever happens.
    """

    cpu_time_s: float = 6.0
    wall_time_s: float | None = None
    memory_mb: int = 1024  # beyond what the empty interpreter occupies
    output_kb: int = 4096  # of stdout; also the largest returned value
    processes: int = 64  # threads at the same time; a program can never start processes

    def __post_init__(self) -> None:
        for name in ("cpu_time_s", "memory_mb", "output_kb", "processes"):
            if not 0 < getattr(self, name) <= _LARGEST:
                raise ValueError(f"Limits.{name} must be positive, up to {_LARGEST:,}; it is {getattr(self, name)!r}")
        if self.wall_time_s is not None and not 0 < self.wall_time_s <= _LARGEST:
            raise ValueError(f"Limits.wall_time_s must be positive or None, it is {self.wall_time_s!r}")

    @property
    def wall_s(self) -> float:
        return self.wall_time_s if self.wall_time_s is not None else 2 * self.cpu_time_s + 2

    @property
    def hard_wall_s(self) -> float:
        return 10 * self.wall_s


@dataclass(frozen=True)
class Frame:
    """One line of a traceback that lies in the program itself (or in one of its `files`)."""

    line: int
    function: str
    source: str
    file: str


@dataclass(frozen=True)
class Assertion:
    """The assertion that failed, or the line of the test code that did."""

    line: int  # of the test code, counted from 1; 0: unknown
    source: str
    left: str | None = None  # what the sides of a comparison were, as Python writes them; the program's side first
    right: str | None = None
    calls: tuple[tuple[str, str], ...] = ()  # the last calls of the program: call, result


@dataclass(frozen=True)
class TestResult:
    """What happened in one test.  Texts are the program's own, unfiltered."""

    __test__ = False

    verdict: Verdict
    input: str
    expected: str
    stdout: str | None = None
    value: str | None = None  # functional: the returned value as Python writes it
    exception_type: str | None = None
    message: str | None = None
    frames: tuple[Frame, ...] = ()
    cpu_time_s: float = 0.0
    wall_time_s: float = 0.0
    peak_memory_mb: float | None = None  # resident set of the process that ran the test
    signal: int | None = None
    index: int = 0  # position among the job's tests
    testtype: TestType = "stdin"
    assertion: Assertion | None = None  # of test code: the first that failed
    assertions: int = 0  # of test code: places in it that assert something
    assertions_passed: int = 0  # those that were reached and held every time

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.ACCEPTED


@dataclass(frozen=True)
class Judgement:
    """The verdict on one program.  `tests` holds the tests that ran, in order: under `stop="first_failure"` the last
    one is the failure, and a time-out always ends the list."""

    verdict: Verdict
    tests: tuple[TestResult, ...] = ()
    truncated: bool = False  # the response that held the program was cut at its length limit
    total_tests: int = 0
    message: str = ""  # compile error, sandbox error: what happened

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.ACCEPTED

    @property
    def first_failure(self) -> TestResult | None:
        """The first test that did not pass."""
        return next((test for test in self.tests if not test.passed), None)


@dataclass(frozen=True)
class Job:
    """One program to judge.  `files`: modules that the program may import, name (with or without .py) → source."""

    code: str | None
    tests: Sequence[TestCase]
    limits: Limits = field(default_factory=Limits)
    files: Mapping[str, str] | None = None
    stop: Stop = "first_failure"
    truncated: bool = False


def check_job(job: Job) -> None:
    """Raise `BadTests` (or ValueError) for a job that no program could be judged by."""
    if job.stop not in ("first_failure", "all"):
        raise ValueError(f'stop must be "first_failure" or "all", it is {job.stop!r}')
    if not isinstance(job.code, str | None):
        raise BadTests(f"the program must be text (str) or None, it is {type(job.code).__name__}")
    if not job.tests:
        raise BadTests("there are no tests: a program without tests would pass whatever it does; give at least one")
    for number, test in enumerate(job.tests, 1):
        if not isinstance(test.input, str) or not isinstance(test.output, str):
            raise BadTests(f"test {number}: input and output must be text (str)")
        if test.testtype == "stdin":
            continue
        if test.testtype == "assertions":
            if problem := problem_with(test.input):
                raise BadTests(f"test {number}: {problem}")
            continue
        if test.testtype != "functional":
            raise BadTests(
                f'test {number}: testtype must be "stdin", "functional" or "assertions", it is {test.testtype!r}'
            )
        if not isinstance(test.fn_name, str) or not test.fn_name:
            raise BadTests(f"test {number} is functional: fn_name must name the function to call")
        for what, texts in (("input", argument_lines(test.input)), ("output", [test.output])):
            for text in texts:
                try:
                    json.loads(text, parse_int=str)
                except (ValueError, RecursionError) as error:
                    raise BadTests(f"test {number}: {what} is not JSON ({error}): {text[:80]!r}") from None


def argument_lines(text: str) -> list[str]:
    """The lines of a functional input, one JSON value each; white space around them is harmless."""
    return [line for line in text.strip().split("\n") if line.strip()] if text.strip() else []
