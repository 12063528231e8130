"""One child at work on one task: its clocks, reports and output.  Nothing that the child says is taken for granted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from . import wire
from .task import OUT_OF_TURN, Task, inputs_of, result_of_exit
from .types import TestCase, TestResult
from .zygote import Child, Exit

DAMAGED = wire.Report({"s": "exception", "e": "RuntimeError", "m": OUT_OF_TURN}, b"")
_SEND_TIMEOUT_S = 10.0


class Run:
    """One child at work on one task."""

    def __init__(self, child: Child, task: Task, tests: Sequence[TestCase]) -> None:
        self.child = child
        self.task = task
        self.tests = tests
        self.position = 0  # of the running test among them
        self.heard = False  # anything from the child
        self.reader = wire.ReportReader(task.job.limits.output_kb * 1024)
        self.begin_test()
        self.look()

    @property
    def children(self) -> tuple[Child, ...]:
        return (self.child,)

    def hand_over(self) -> None:
        """Give the child its program and its inputs."""
        child, job, limits = self.child, self.task.job, self.task.job.limits
        inputs = inputs_of(self.tests)
        fn_name = self.tests[0].fn_name if self.tests[0].testtype == "functional" else None
        if fn_name is None and len(inputs) == 1:
            _write_all(child.stdin, inputs[0])
            inputs = (None,)
        output_limit, memory = limits.output_kb * 1024, limits.memory_mb << 20
        files = dict(job.files or {})
        bounds = (output_limit, limits.cpu_time_s, memory, limits.processes)
        give(child, (wire.SERIES, job.code, files, fn_name, inputs, *bounds))

    def begin_test(self, clocks: tuple[float, float] | None = None) -> None:
        """clocks: of CPU and wall at the end of the test of a series before this one; the child is ahead of us."""
        self.cpu_began, self.began = clocks or (self.child.cpu_time_s() or 0.0, time.monotonic())
        limits = self.task.job.limits
        self.next_check = self.began + min(limits.cpu_time_s, limits.wall_s)

    def look(self) -> None:
        """Note what the clocks say: what has been read cannot have happened later."""
        self._seen = self.child.cpu_time_s(), time.monotonic()

    def clocks(self, report: wire.Report) -> tuple[float, float]:
        """CPU and wall clock at the end of a test: what the report says, if that lies between its beginning and now."""
        cpu_now, now = self._seen
        if cpu_now is None:  # the process is gone
            cpu_now = self.cpu_began + max(now - self.began, 0.0)
        return _within(report.cpu_clock_s, self.cpu_began, cpu_now), _within(report.clock_s, self.began, now)

    def cpu_s(self) -> float:
        """CPU seconds of the test; 0 once the process is gone (its exit status brings the true figure)."""
        now = self.child.cpu_time_s()
        return 0.0 if now is None else max(now - self.cpu_began, 0.0)

    def wall_s(self) -> float:
        return max(time.monotonic() - self.began, 0.0)

    def left_s(self) -> float:
        """Seconds until the test can be over its time limit; 0 or less: it is.

        Waiting for a core is not the program's time, but nothing takes longer than the hard limit.
        """
        limits, wall_s = self.task.job.limits, self.wall_s()
        idle_left_s = limits.wall_s - wall_s
        if idle_left_s <= 0:
            idle_left_s += self.child.waited_s()
        return min(limits.cpu_time_s - self.cpu_s(), idle_left_s, limits.hard_wall_s - wall_s)

    def explained(self, result: TestResult) -> TestResult:
        """The result, with what only the judge knows of a test that came to no end."""
        return result

    def result_of_exit(self, end: Exit) -> TestResult | None:
        """What the end of a process without a report means; None: somebody outside killed it."""
        cpu_s = max(end.cpu_time_s - self.cpu_began, 0.0)
        return result_of_exit(self.task, end, self.output(), cpu_s, self.wall_s())

    def output(self) -> bytes:
        return os.pread(self.child.stdout, self.task.job.limits.output_kb * 1024 + 1, 0)


def give(child: Child, message: tuple) -> None:
    """Hand a job over to a child that waits for one."""
    child.connection.settimeout(_SEND_TIMEOUT_S)
    try:
        wire.send_job(child.connection, message)
    except OSError:
        pass  # the child has died; the server will report how
    child.connection.setblocking(False)


def _within(said: float, least: float, most: float) -> float:
    """What was said, if it is possible (NaN is not); else the most that is."""
    return said if least <= said <= most else max(least, most)


def _write_all(fd: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], written)
