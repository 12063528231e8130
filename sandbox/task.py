"""The course of one job: which tests are still to run, what each outcome means, when to stop.

No processes here: `engine` moves the bytes, this file decides.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace

from . import values
from .compare import parse_expected, returned_equal, stdin_equal
from .text import as_printed, clean, from_bytes, to_bytes
from .types import Assertion, Frame, Job, Judgement, TestCase, TestResult, Verdict, argument_lines
from .wire import Report
from .zygote import Exit

OUT_OF_TURN = "the program damaged its result channel"
_DEATHS_FORGIVEN = 3
_COMMAS = 10_000  # that a returned value may hold more of than the expected one could
_NUMPY = re.compile(r"^[ \t]*(?:from[ \t]+|import[ \t]+(?:[^#\n;]*,[ \t]*)?)(?:numpy|scipy)\b", re.MULTILINE)
_SERIES_BYTES = 1 << 19  # inputs beyond this are handed over one by one


class Task:
    """One job under way.  `future` gets the `Judgement`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.future: Future[Judgement] = Future()
        self.results: list[TestResult] = []
        self.began = False
        self.deaths = 0  # of processes that were at work on it; nobody knows why
        self.deaths_before = 0  # of all processes of the sandbox, when it began
        self._one_by_one = False  # the program could carry something from one test to the next
        self._confirm = False  # the next test failed in a series: judge it in a fresh process
        self.judgement: Judgement | None = None
        self.numpy = _imports_numpy(job)
        if job.code is None or not job.code.strip():
            self._finish(Verdict.NO_CODE)

    @property
    def done(self) -> bool:
        return self.judgement is not None

    @property
    def next_test(self) -> int:
        return len(self.results)

    @property
    def children(self) -> int:
        """Processes that the next test takes."""
        return 2 if self.test(self.next_test).testtype == "assertions" else 1

    def next_tests(self) -> Sequence[TestCase]:
        """The tests for the next child: as many as may run there one after the other (see `sandbox.screen`)."""
        tests = self.job.tests[self.next_test :]
        if self._one_by_one or self._confirm or tests[0].testtype != tests[-1].testtype:
            return tests[:1]
        if self.children > 1:  # whoever runs its tests has a process of its own, with a fresh one of the program
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
        if result.verdict in (Verdict.COMPILE_ERROR, Verdict.SANDBOX_ERROR):
            self._finish(result.verdict, result.message or "")
        elif not result.passed and (self.job.stop == "first_failure" or result.verdict is Verdict.TIME_LIMIT):
            self._finish(self._first_failure())
        elif over:
            self._finish(self._first_failure())

    def worker_died(self, why: str, peak_memory_mb: float, others: bool) -> None:
        """The child or the fork server was killed, and not by us: forgiven a few times.

        others: something that had nothing to do with this program was killed meanwhile, too.  Then the machine is to
        blame; if always and only this program dies, it has found a way to, and that must not save it from a verdict.
        """
        self.deaths += 1
        if self.deaths <= _DEATHS_FORGIVEN:
            return
        base = self.result(Verdict.SANDBOX_ERROR, message=f"{why}, {self.deaths} times", peak_memory_mb=peak_memory_mb)
        if others:
            self.results.append(base)
            self._finish(Verdict.SANDBOX_ERROR, base.message or "")
        elif peak_memory_mb > self.job.limits.memory_mb / 2:
            self.record(replace(base, verdict=Verdict.MEMORY_LIMIT, exception_type="SIGKILL"))
        else:
            self.record(replace(base, verdict=Verdict.RUNTIME_ERROR, exception_type="SIGKILL"))

    def result(self, verdict: Verdict, **fields: object) -> TestResult:
        """A result of the next test."""
        test = self.test(self.next_test)
        given, wanted = clean(test.input), clean(test.output)
        return TestResult(verdict, given, wanted, index=self.next_test, testtype=test.testtype, **fields)

    def fail(self, failure: BaseException) -> None:
        """Come to no judgement."""
        with suppress(InvalidStateError):  # done, or cancelled meanwhile
            self.future.set_exception(failure)

    def _first_failure(self) -> Verdict:
        return next((r.verdict for r in self.results if not r.passed), Verdict.ACCEPTED)

    def _finish(self, verdict: Verdict, message: str = "") -> None:
        self.judgement = Judgement(
            verdict, tuple(self.results), self.job.truncated, total_tests=len(self.job.tests), message=message
        )


def _imports_numpy(job: Job) -> bool:
    """Whether a child that has numpy saves the program, or its tests, the import.  A guess costs time, nothing else."""
    texts = [job.code or "", *(job.files or {}).values()]
    texts += [test.input for test in job.tests if test.testtype == "assertions"]
    own = {name.removesuffix(".py") for name in job.files or {}}
    return not own & {"numpy", "scipy"} and any("py" in text and _NUMPY.search(text) for text in texts)


def result_of_report(task: Task, report: Report, cpu_s: float, wall_s: float) -> TestResult:
    """What a child's report on the next test means."""
    test, limits, header = task.test(task.next_test), task.job.limits, report.header
    limit = limits.output_kb * 1024
    base = task.result(
        Verdict.ACCEPTED,
        stdout=from_bytes(report.output[:limit]),
        cpu_time_s=cpu_s,
        wall_time_s=wall_s,
        peak_memory_mb=report.peak_kib / 1024,
    )
    status = header.get("s")
    if status in ("exception", "compile"):
        kind, message = clean(str(header.get("e"))), clean(str(header.get("m")))
        base = replace(base, exception_type=kind, message=message, frames=_frames(header.get("f")))
    if status == "compile":
        return replace(base, verdict=Verdict.COMPILE_ERROR)
    if cpu_s > limits.cpu_time_s:
        return replace(base, verdict=Verdict.TIME_LIMIT)
    if len(report.output) > limit:
        return replace(base, verdict=Verdict.OUTPUT_LIMIT)
    if status == "too large":
        return replace(base, verdict=Verdict.OUTPUT_LIMIT, message=clean(str(header.get("m"))))
    if status == "exception":
        kind = Verdict.MEMORY_LIMIT if base.exception_type == "MemoryError" else Verdict.RUNTIME_ERROR
        return replace(base, verdict=kind)
    if test.testtype == "stdin":
        equal = stdin_equal(base.stdout or "", as_printed(test.output))
        return base if equal else replace(base, verdict=Verdict.WRONG_ANSWER)
    if test.testtype == "assertions":  # only the process of the tests says that they passed
        return replace(base, verdict=Verdict.RUNTIME_ERROR, exception_type="RuntimeError", message=OUT_OF_TURN)
    return _result_of_value(base, report.value, test.output)


def result_of_examination(task: Task, report: Report, longest_cpu_s: float, cpu_s: float, wall_s: float) -> TestResult:
    """What the process of the tests says of a program.

    longest_cpu_s: of the two processes; what a program returns can take the time of the other one.
    """
    limits, header = task.job.limits, report.header
    base = task.result(
        Verdict.ACCEPTED,
        stdout=from_bytes(report.output[: limits.output_kb * 1024]),
        cpu_time_s=cpu_s,
        wall_time_s=wall_s,
        peak_memory_mb=report.peak_kib / 1024,
    )
    if header.get("s") == "unfit":
        return replace(base, verdict=Verdict.SANDBOX_ERROR, message=clean(str(header.get("m"))))
    if longest_cpu_s > limits.cpu_time_s:
        return replace(base, verdict=Verdict.TIME_LIMIT)
    if header.get("s") == "too large" or len(report.output) > limits.output_kb * 1024:
        return replace(base, verdict=Verdict.OUTPUT_LIMIT, message=clean(str(header.get("m", ""))))
    base = replace(base, assertions=int(header["n"]), assertions_passed=int(header["k"]))
    failure = header.get("a")
    if failure is None:
        return base if header["ok"] is True else replace(base, verdict=Verdict.WRONG_ANSWER)
    base = replace(base, assertion=_assertion(failure))
    if failure["asserted"]:
        message = clean(failure["m"]) or None
        return replace(base, verdict=Verdict.WRONG_ANSWER, value=base.assertion.left, message=message)
    kind = Verdict.MEMORY_LIMIT if failure["e"] == "MemoryError" else Verdict.RUNTIME_ERROR
    name, message = clean(failure["e"]), clean(failure["m"])
    return replace(base, verdict=kind, exception_type=name, message=message, frames=_frames(failure["f"]))


def _assertion(failure: dict) -> Assertion:
    names = ("right", "left") if failure.get("swap") else ("left", "right")
    left, right = (clean(failure[name]) if name in failure else None for name in names)
    calls = tuple((clean(call), clean(result)) for call, result in failure.get("calls", ()))
    return Assertion(failure["line"], clean(failure["source"]), left, right, calls)


def _result_of_value(base: TestResult, encoded: bytes, expected: str) -> TestResult:
    wrong = replace(base, verdict=Verdict.WRONG_ANSWER)
    try:
        value = values.decode(encoded, _COMMAS + 2 * len(expected))
    except values.TooLarge as problem:  # and therefore not what was expected
        start = encoded[:_COMMAS].decode("ascii", "replace")
        return replace(wrong, value=start + values.CUT, message=str(problem))
    except ValueError:
        return replace(wrong, message="the returned value is not plain data")
    if not values.is_plain(value):
        return replace(wrong, value=clean(values.show(value)), message="the returned value is not plain data")
    equal = returned_equal(value, parse_expected(expected))
    return replace(base if equal else wrong, value=clean(values.show(value)))


def result_of_exit(task: Task, end: Exit, output: bytes, cpu_s: float, wall_s: float) -> TestResult | None:
    """What the end of a child without a report means; None: somebody outside killed it."""
    test, limits = task.test(task.next_test), task.job.limits
    limit = limits.output_kb * 1024
    base = task.result(
        Verdict.RUNTIME_ERROR,
        stdout=from_bytes(output[:limit]),
        cpu_time_s=cpu_s,
        wall_time_s=wall_s,
        peak_memory_mb=end.peak_memory_mb,
        signal=end.signal,
    )
    if cpu_s > limits.cpu_time_s or end.signal == signal.SIGXCPU:
        return replace(base, verdict=Verdict.TIME_LIMIT)
    if len(output) > limit:
        return replace(base, verdict=Verdict.OUTPUT_LIMIT)
    if end.signal == signal.SIGKILL:
        return None
    if end.signal is not None:
        name = _signal_name(end.signal)
        return replace(base, message=f"the program was ended by {name}", exception_type=name)
    if end.code != 0:
        return replace(base, message=f"the program ended with exit status {end.code}", exception_type="SystemExit")
    if test.testtype != "stdin":
        return replace(base, message="the program ended instead of returning a value", exception_type="SystemExit")
    equal = stdin_equal(base.stdout or "", as_printed(test.output))
    return replace(base, verdict=Verdict.ACCEPTED if equal else Verdict.WRONG_ANSWER)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have no name
        return f"signal {number}"


def time_limit(task: Task, output: bytes, cpu_s: float, wall_s: float) -> TestResult:
    stdout = from_bytes(output[: task.job.limits.output_kb * 1024])
    return task.result(Verdict.TIME_LIMIT, stdout=stdout, cpu_time_s=cpu_s, wall_time_s=wall_s)


def inputs_of(tests: Sequence[TestCase]) -> tuple:
    """What a child is given of the tests: inputs only."""
    if tests[0].testtype == "functional":
        return tuple("\n".join(argument_lines(test.input)) for test in tests)
    return tuple(to_bytes(test.input) for test in tests)


def _frames(raw: object) -> tuple[Frame, ...]:
    try:
        return tuple(Frame(int(line), *(clean(str(text)) for text in texts)) for line, *texts in raw)[:40]
    except (TypeError, ValueError, OverflowError):
        return ()
