"""Two children at work on one assertion test: the program in one, the tests in the other, and the judge in between.

The judge carries their messages without reading them, and takes the verdict from the child of the tests alone.
"""

from __future__ import annotations

import selectors
from dataclasses import replace

from . import wire
from .objects import parse, show
from .run import DAMAGED, Run, give
from .task import Task, result_of_examination, result_of_report
from .text import clean
from .types import Assertion, TestCase, TestResult, Verdict
from .zygote import Child, Exit

_ENDED_TESTS = wire.Report(
    {"s": "exception", "e": "RuntimeError", "m": "what the program returned ended the process of its tests"}, b""
)
_SHOWN = 2000  # characters of a call


class Session(Run):
    """`child` runs the program, `examiner` the tests."""

    def __init__(self, child: Child, examiner: Child, task: Task, tests: tuple[TestCase, ...]) -> None:
        self.examiner = examiner
        self._turn = examiner  # whose message comes next
        self._examiner_reader = wire.ReportReader(task.job.limits.output_kb * 1024)
        self._last_call = b""  # what the tests asked last
        self._unsent = {child.slot: bytearray(), examiner.slot: bytearray()}
        super().__init__(child, task, tests)

    @property
    def children(self) -> tuple[Child, ...]:
        return self.child, self.examiner

    def hand_over(self) -> None:
        job, limits, test = self.task.job, self.task.job.limits, self.tests[0]
        output_limit, memory = limits.output_kb * 1024, limits.memory_mb << 20
        bounds = (output_limit, limits.cpu_time_s, memory, limits.processes)
        names = tuple((test.fn_name or "").split())
        give(self.child, (wire.CANDIDATE, job.code, dict(job.files or {}), None, (None,), *bounds))
        give(self.examiner, (wire.EXAMINER, test.input, {}, names, (job.stop == "all",), *bounds))

    def begin_test(self, clocks: tuple[float, float] | None = None) -> None:
        self._examiner_began = self.examiner.cpu_time_s() or 0.0
        super().begin_test(clocks)

    def left_s(self) -> float:
        """As of a single child; the time of the tests counts too, since what a program returns can take theirs."""
        limits, wall_s = self.task.job.limits, self.wall_s()
        idle_left_s = limits.wall_s - wall_s
        if idle_left_s <= 0:
            idle_left_s += self.child.waited_s() + self.examiner.waited_s()
        cpu_left_s = limits.cpu_time_s - max(self.cpu_s(), self.examiner_cpu_s())
        return min(cpu_left_s, idle_left_s, limits.hard_wall_s - wall_s)

    def examiner_cpu_s(self) -> float:
        now = self.examiner.cpu_time_s()
        return 0.0 if now is None else max(now - self._examiner_began, 0.0)

    def read(self, selector: selectors.BaseSelector) -> TestResult | None:
        """Carry messages until both are silent; the result, once there is one."""
        silent = False
        while not silent:
            silent = True
            for child in self.children:
                if not (data := b"" if child.closed else child.new_reports()):
                    continue
                silent = False
                try:
                    report = self._passed_on(child, data, selector)
                except ValueError:
                    report, child = DAMAGED, self.child
                if report is not None:
                    return self._result(child, report)
        return None

    def _passed_on(self, child: Child, data: bytes, selector: selectors.BaseSelector) -> wire.Report | None:
        """Pass on what a child has written; a report that ends the test.

        Raises ValueError for what no child of ours would write, or not now: each waits for the other's answer.
        """
        reader = self.reader if child is self.child else self._examiner_reader
        for report in reader.feed(data):
            if report.header.get("s") != wire.RELAY["s"]:
                return report
            if child is not self._turn:
                raise ValueError("a message out of turn")
            if child is self.examiner:
                self._last_call = report.value
            self._turn = self.examiner if child is self.child else self.child
            self._unsent[self._turn.slot] += wire.pack_message(report.value)
            self.flush(self._turn, selector)
        return None

    def _result(self, child: Child, report: wire.Report) -> TestResult:
        """What a report that is no message means; only the child of the tests can say that they passed."""
        cpu_s, wall_s = self.cpu_s(), self.wall_s()
        report = report._replace(output=self.output(), peak_kib=self.child.resident_kib())
        if child is self.examiner:
            return result_of_examination(self.task, report, max(self.examiner_cpu_s(), cpu_s), cpu_s, wall_s)
        return result_of_report(self.task, report, cpu_s, wall_s)

    def result_of_exit(self, end: Exit) -> TestResult | None:
        result = super().result_of_exit(end)
        if end.slot == self.examiner.slot and result is not None and result.verdict is not Verdict.TIME_LIMIT:
            result = result_of_report(self.task, _ENDED_TESTS, self.cpu_s(), self.wall_s())
        return None if result is None else self.explained(result)

    def explained(self, result: TestResult) -> TestResult:
        """With the call of the program that the tests were waiting for."""
        try:
            kind, _, arguments, keywords, name = parse(self._last_call)
            shown = [show(value)[:_SHOWN] for value in arguments]
            shown += [f"{key}={show(value)}"[:_SHOWN] for key, value in keywords]
        except Exception:  # no call, or one with what a program has made up
            return result
        call = clean(f"{name}({', '.join(shown)})"[:_SHOWN])
        return replace(result, assertion=Assertion(0, call, calls=((call, "no answer"),))) if kind == "call" else result

    def flush(self, child: Child, selector: selectors.BaseSelector) -> None:
        """Send what there is room for, and hear of room for the rest."""
        unsent = self._unsent[child.slot]
        try:
            while unsent:
                del unsent[: child.connection.send(unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it has died; the server will report how
            unsent.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if unsent else 0)
        try:
            key = selector.get_key(child.connection)
            if key.events != wanted:
                selector.modify(child.connection, wanted, key.data)
        except (KeyError, ValueError):  # it has hung up
            pass
