"""The course of one job: which tests are still to run, what each outcome means, when to stop.

No processes here: `engine` moves the bytes, this file decides.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from . import values
from .compare import parse_expected, stdin_equal, value_equal
from .types import Frame, Job, Judgement, TestCase, TestResult, Verdict, argument_lines
from .wire import Report
from .zygote import Exit

_DEATHS_FORGIVEN = 1
_SERIES_BYTES = 1 << 19  # inputs beyond this are handed over one by one


class Task:
    """One job under way.  `future` gets the `Judgement`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.future: Future[Judgement] = Future()
        self.results: list[TestResult] = []
        self.deaths = 0
        self._one_by_one = False  # the program could carry something from one test to the next
        self._confirm = False  # the next test failed in a series: judge it in a fresh process
        self.judgement: Judgement | None = None
        if job.code is None or not job.code.strip():
            self._finish(Verdict.NO_CODE)

    @property
    def done(self) -> bool:
        return self.judgement is not None

    @property
    def next_test(self) -> int:
        return len(self.results)

    def next_tests(self) -> Sequence[TestCase]:
        """The tests for the next child: as many as may run there one after the other (see `sandbox.screen`)."""
        tests = self.job.tests[self.next_test :]
        if self._one_by_one or self._confirm or tests[0].testtype != tests[-1].testtype:
            return tests[:1]
        largest = min(_SERIES_BYTES, self.job.limits.output_kb << 8)
        size = 0
        for count, test in enumerate(tests):
            size += 4 * len(test.input)
            if size > largest:
                return tests[: max(count, 1)]
        return tests

    def one_by_one(self) -> None:
        """The program did not pass the screen: a child for every test from now on."""
        self._one_by_one = True

    def take(self, result: TestResult, position: int) -> bool:
        """Record a reported result, the `position`-th of its child.  False: it has to be confirmed in a fresh child."""
        if position > 0 and not result.passed and result.verdict is not Verdict.TIME_LIMIT:
            self._confirm = True
            return False
        self._confirm = False
        self.record(result)
        return True

    def test(self, index: int) -> TestCase:
        return self.job.tests[index]

    def record(self, result: TestResult) -> None:
        """Take the outcome of the next test."""
        self.results.append(result)
        over = len(self.results) == len(self.job.tests)
        if result.verdict is Verdict.COMPILE_ERROR:
            self._finish(Verdict.COMPILE_ERROR, result.message or "")
        elif not result.passed and (self.job.stop == "first_failure" or result.verdict is Verdict.TIME_LIMIT):
            self._finish(self._first_failure())
        elif over:
            self._finish(self._first_failure())

    def worker_died(self, why: str) -> None:
        """The child or the fork server died without the program's doing: once is forgiven."""
        self.deaths += 1
        if self.deaths > _DEATHS_FORGIVEN:
            test = self.test(self.next_test)
            self.results.append(
                TestResult(Verdict.SANDBOX_ERROR, test.input, test.output, message=why, index=self.next_test)
            )
            self._finish(Verdict.SANDBOX_ERROR, why)

    def _first_failure(self) -> Verdict:
        return next((r.verdict for r in self.results if not r.passed), Verdict.ACCEPTED)

    def _finish(self, verdict: Verdict, message: str = "") -> None:
        self.judgement = Judgement(
            verdict, tuple(self.results), self.job.truncated, total_tests=len(self.job.tests), message=message
        )


def result_of_report(task: Task, index: int, report: Report, cpu_s: float, wall_s: float) -> TestResult:
    """What a child's report means."""
    test, limits, header, output = task.test(index), task.job.limits, report.header, report.output
    limit = limits.output_kb * 1024
    base = TestResult(
        Verdict.ACCEPTED,
        test.input,
        test.output,
        stdout=output[:limit].decode("utf-8", "replace"),
        cpu_time_s=cpu_s,
        wall_time_s=wall_s,
        peak_memory_mb=report.peak_kib / 1024,
        index=index,
    )
    status = header.get("s")
    if status in ("exception", "compile"):
        kind, message = str(header.get("e")), str(header.get("m"))
        base = replace(base, exception_type=kind, message=message, frames=_frames(header.get("f")))
    if status == "compile":
        return replace(base, verdict=Verdict.COMPILE_ERROR)
    if cpu_s > limits.cpu_time_s:
        return replace(base, verdict=Verdict.TIME_LIMIT)
    if len(output) > limit or status == "long value":
        return replace(base, verdict=Verdict.OUTPUT_LIMIT)
    if status == "exception":
        kind = Verdict.MEMORY_LIMIT if base.exception_type == "MemoryError" else Verdict.RUNTIME_ERROR
        return replace(base, verdict=kind)
    if test.testtype == "stdin":
        return base if stdin_equal(base.stdout or "", test.output) else replace(base, verdict=Verdict.WRONG_ANSWER)
    try:
        value = values.decode(str(header["v"]))
    except (KeyError, ValueError):
        return replace(base, verdict=Verdict.WRONG_ANSWER, message="the returned value is not plain data")
    equal = value_equal(value, parse_expected(test.output))
    return replace(base, value=_shown(value), verdict=Verdict.ACCEPTED if equal else Verdict.WRONG_ANSWER)


def result_of_exit(task: Task, index: int, end: Exit, output: bytes, cpu_s: float, wall_s: float) -> TestResult | None:
    """What the end of a child without a report means; None: somebody outside killed it."""
    test, limits = task.test(index), task.job.limits
    limit = limits.output_kb * 1024
    base = TestResult(
        Verdict.RUNTIME_ERROR,
        test.input,
        test.output,
        stdout=output[:limit].decode("utf-8", "replace"),
        cpu_time_s=cpu_s,
        wall_time_s=wall_s,
        peak_memory_mb=end.peak_memory_mb,
        signal=end.signal,
        index=index,
    )
    if cpu_s > limits.cpu_time_s or end.signal == signal.SIGXCPU:
        return replace(base, verdict=Verdict.TIME_LIMIT)
    if len(output) > limit:
        return replace(base, verdict=Verdict.OUTPUT_LIMIT)
    if end.signal == signal.SIGKILL:
        return None
    if end.signal is not None:
        name = signal.Signals(end.signal).name
        return replace(base, message=f"the program was ended by {name}", exception_type=name)
    if end.code != 0:
        return replace(base, message=f"the program ended with exit status {end.code}", exception_type="SystemExit")
    if test.testtype == "functional":
        return replace(base, message="the program ended instead of returning a value", exception_type="SystemExit")
    verdict = Verdict.ACCEPTED if stdin_equal(base.stdout or "", test.output) else Verdict.WRONG_ANSWER
    return replace(base, verdict=verdict)


def time_limit(task: Task, index: int, output: bytes, cpu_s: float, wall_s: float) -> TestResult:
    test = task.test(index)
    stdout = output[: task.job.limits.output_kb * 1024].decode("utf-8", "replace")
    return TestResult(
        Verdict.TIME_LIMIT, test.input, test.output, stdout, cpu_time_s=cpu_s, wall_time_s=wall_s, index=index
    )


def inputs_of(tests: Sequence[TestCase]) -> tuple:
    """What a child is given of the tests: inputs only."""
    if tests[0].testtype == "functional":
        return tuple("\n".join(argument_lines(test.input)) for test in tests)
    return tuple(test.input.encode("utf-8", "surrogateescape") for test in tests)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than the interpreter prints
        return f"<{type(value).__name__}, too large to show>"


def _frames(raw: object) -> tuple[Frame, ...]:
    try:
        return tuple(Frame(int(line), str(name), str(text), str(file)) for line, name, text, file in raw)[:40]
    except (TypeError, ValueError, OverflowError):
        return ()
