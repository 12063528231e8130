"""The life of one child: say that it is ready, take one job, run its tests, report each, end."""

from __future__ import annotations

import math
import os
import resource
import socket
from resource import getrlimit, setrlimit

from . import failure, modules, screen, wire
from .later import ASSERTIONS
from .modules import PROGRAM_FILE
from .prelude import remove_prelude
from .runner import Program
from .seccomp import LastFilter

_NOT_REPEATABLE = 71  # exit status
_RING_S = 0.005  # the judge hears of a series at least this often
_PIECE = 1 << 16  # bytes of a report for which there is no room at once
_LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
_REHEARSAL = """
import sys
def f(n, xs):
    best = [n, str(n)]
    for i, x in enumerate(xs):
        if x > 1:
            best.append(x)
    return best
for line in sys.stdin:
    n, *xs = map(int, line.split())
    print(f(n, xs), Counter(xs), sorted(set(xs)))
print(f(2, [])[3])
"""


def rehearse(prelude: dict[str, object]) -> None:
    """Judge a small program and throw the result away: what that touches is loaded, and copied, before it counts."""
    (judge, doorbell), (read_reports, reports) = socket.socketpair(), socket.socketpair()
    inputs = (b"1 2 3\n", b"2 3 4\n")
    wire.send_job(judge, (wire.SERIES, _REHEARSAL, {}, None, inputs, 1 << 16, None, 0, 0))
    _Child(doorbell, reports, prelude).judge()
    for end in (judge, doorbell, read_reports, reports):
        end.close()


def live(
    connection: socket.socket,
    reports: socket.socket,
    prelude: dict[str, object],
    base_bytes: int,
    other_threads: int,
    last_filter: LastFilter | None,
) -> None:
    """other_threads: those that the kernel may count together with the program's, since they have the same user id.

    last_filter: installed once the limits are set; None where nothing isolates.
    """
    connection.sendall(wire.READY)
    _Child(connection, reports, prelude, base_bytes, other_threads, last_filter).judge()
    connection.recv(1)  # the judge reads the CPU clock of this process before it ends it


class _Child:
    def __init__(
        self,
        connection: socket.socket,
        reports: socket.socket,
        prelude: dict[str, object],
        base_bytes: int = 0,
        other_threads: int = 0,
        last_filter: LastFilter | None = None,
    ) -> None:
        self._connection, self._reports, self._prelude = connection, reports, prelude
        self._base_bytes, self._other_threads, self._last_filter = base_bytes, other_threads, last_filter

    def judge(self) -> None:
        """Take one job and do it."""
        buffer = bytearray()
        job = wire.receive_job(self._connection, buffer)
        if job is None:
            return
        role, source, files, names, inputs, output_limit, cpu_s, memory_bytes, processes = job
        self._apply_limits(cpu_s and cpu_s * len(inputs), memory_bytes, output_limit, processes)
        outbox = _Outbox(self._connection, self._reports)
        if role == wire.SERIES:
            self._run_series(source, files, names, inputs, output_limit, outbox)
            return
        ASSERTIONS.load()
        from . import candidate, examiner
        from .dialogue import Dialogue

        dialogue = Dialogue(self._connection, buffer, lambda report: outbox.put(report, last=True))
        most = output_limit + wire.VALUE_ALLOWANCE
        if role == wire.CANDIDATE:
            program = self._loaded(source, files, outbox)
            if program is not None:
                candidate.serve(program, dialogue, most)
        else:
            header = examiner.examine(source, names, inputs[0], dialogue, most)
            outbox.put(wire.Report(header, b""), last=True)

    def _loaded(self, source: str, files: dict, outbox: _Outbox) -> Program | None:
        """The program of an assertion test, its module run; None, and a report, where that fails."""
        _empty_output()
        finder = modules.install(files) if files else None
        remove_prelude(self._prelude)
        program = self._compiled(source, finder, outbox)
        if program is not None and (problem := program.load()):
            outbox.put(wire.Report(problem, b""), last=True)
            return None
        return program

    def _compiled(self, source: str, finder, outbox: _Outbox, **options: bool) -> Program | None:  # noqa: ANN001
        """The program; None, and a report, where it does not compile."""
        source = source.removeprefix("\ufeff")  # the byte-order mark that an interpreter skips in a file
        try:
            return Program(source, self._prelude, finder, **options)
        except BaseException as error:  # compile() raises about anything: SyntaxError, ValueError, MemoryError, …
            header = {"s": "compile"} | failure.describe(error, {PROGRAM_FILE: source.split("\n")})
            outbox.put(wire.Report(header, b""), last=True)
            return None

    def _run_series(
        self, source: str, files: dict, fn_name: str | None, inputs: tuple, output_limit: int, outbox: _Outbox
    ) -> None:
        """Run a program's tests one after the other, as far as that may be, and report each of them."""
        finder = modules.install(files) if files else None
        floats = fn_name is not None and any(map(screen.may_hold_floats, inputs))
        program = self._compiled(source, finder, outbox, repeated=len(inputs) > 1, floats=floats)
        if program is None:
            return
        if len(inputs) > 1 and not program.repeatable:
            # Said before the program has run a single instruction, so that no program can claim otherwise.
            outbox.put(wire.Report(wire.ALONE, b""), last=True)
            inputs = inputs[:1]
        series = len(inputs) > 1
        for left, test_input in zip(range(len(inputs) - 1, -1, -1), inputs, strict=True):
            arguments, stdin = (None, test_input) if fn_name is None else (test_input, b"")
            if not series and stdin:  # None: the judge has put it there
                _place_input(stdin)
            _empty_output()
            outbox.put(program.run(fn_name, arguments, output_limit, stdin if series else None), last=not left)
            if left and program.left_a_trace():
                os._exit(_NOT_REPEATABLE)  # the judge gives the next test to a fresh child

    def _apply_limits(self, cpu_s: float | None, memory_bytes: int, output_limit: int, processes: int) -> None:
        if cpu_s is None:  # a rehearsal: no limit could be raised again
            for which in _LIMITS:
                setrlimit(which, getrlimit(which))
            return
        # The judge measures CPU time more finely; this one holds even if the judge is stopped or gone.
        threads = processes + self._other_threads
        values = (math.ceil(cpu_s) + 1, memory_bytes + self._base_bytes, output_limit + 1, threads)
        for which, value in zip(_LIMITS, values, strict=True):
            setrlimit(which, (value, value))
        if self._last_filter is not None:
            self._last_filter.install()


class _Outbox:
    """Reports on their way to the judge.

    A report lies in the socket, safe from whatever happens to this process, before the next test begins; but the judge
    is woken for it only after the first test of a series (most wrong programs fail it), then ever more rarely.
    """

    def __init__(self, connection: socket.socket, reports: socket.socket) -> None:
        self._connection, self._reports = connection, reports
        reports.setblocking(False)
        self._count, self._next_ring, self._rang = 0, 1, 0.0

    def put(self, report: wire.Report, last: bool) -> None:
        data = wire.pack_report(report)
        self._count += 1
        try:
            sent = self._reports.send(data)
        except BlockingIOError:
            sent = 0
        whole = sent == len(data)
        while sent < len(data):  # the judge has to make room, and to hear of every piece: else it sleeps meanwhile
            self._ring(report)
            self._reports.setblocking(True)
            sent += self._reports.send(memoryview(data)[sent : sent + _PIECE])
            self._reports.setblocking(False)
        if last or not whole or self._count >= self._next_ring or report.clock_s - self._rang > _RING_S:
            self._ring(report)

    def _ring(self, report: wire.Report) -> None:
        self._next_ring = 4 * self._count
        self._rang = report.clock_s
        self._connection.sendall(wire.RING)


def _empty_output() -> None:
    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)


def _place_input(text: bytes) -> None:
    written = 0
    while written < len(text):
        written += os.pwrite(0, text[written:], written)
