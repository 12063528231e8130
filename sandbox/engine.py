"""The thread that drives the children: hands out jobs, enforces time limits, collects reports, keeps the pool full."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from . import wire
from .errors import BadTests, SandboxError
from .lookout import EVERY_S, Lookout
from .run import DAMAGED, Run
from .session import Session
from .supply import FORKS_IN_A_ROW, Supply, WarmSupply
from .tally import Tally
from .task import Task, result_of_report, time_limit
from .types import Job, Judgement, check_job
from .zygote import Child, Exit, Zygote

_CHECK_S = 0.01  # shortest interval between two looks at a running child's CPU clock
_FILLED_AT_ONCE = 2  # children that are made for later
_QUIET_S = 0.02  # after the last program; one that comes at once should not find the core at work for later ones
_RETIRED_KIB = 48 << 10  # a child larger than this is not kept for later
_SCARCE = "(`ulimit -n`, `ulimit -u`, memory?)"
WARM_SHARE = 4  # one child in so many is kept ready with numpy, once programs import it
_SUSPICIOUS = 2  # deaths of one program; from then on it runs alone

log = logging.getLogger("sandbox")


class Engine:
    """Owns the fork servers, the pool and all running children; everything below `submit` runs in its one thread."""

    def __init__(self, workers: int, pool: int, start_server: Callable[..., Zygote]) -> None:
        """start_server: starts a fork server; with `numpy=True` one that has numpy loaded."""
        self._workers = workers
        self._plain = Supply(start_server, pool)
        self._warm = WarmSupply(functools.partial(start_server, numpy=True), max(pool // WARM_SHARE, 1), place=1)
        self._submitted: deque[Task] = deque()
        try:
            self._selector = selectors.DefaultSelector()
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise SandboxError(f"the sandbox cannot start: {error} {_SCARCE}") from error
        self._selector.register(self._wake, selectors.EVENT_READ, self._on_wake)
        self._lock = threading.Lock()
        self._closing = False
        self._ended = False  # the descriptors are being closed, so nobody may wake the thread any more
        self._failure: BaseException | None = None  # what ended the engine's thread before `close`
        self._process = os.getpid()
        self._lookout = Lookout()
        self._quiet_at = 0.0  # when children may be made for later
        self._deaths = 0  # of children and servers, none of them by our hand
        self.tally = Tally()
        self.started: Future[dict] = Future()
        self._thread = threading.Thread(target=self._run, name="sandbox-engine", daemon=True)
        self._thread.start()

    # -- from any thread ---------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Future[Judgement]:
        if os.getpid() != self._process:
            raise SandboxError("this sandbox belongs to the process that forked this one; create one of its own here")
        check_job(job)
        task = Task(job)
        if task.done:
            task.future.set_result(task.judgement)
            return task.future
        with self._lock:
            if self._failure is not None:
                raise SandboxError(f"this sandbox has ended: {self._failure}") from self._failure
            if self._closing:
                raise SandboxError("this sandbox is closed; judge inside of its `with` block")
            self._submitted.append(task)
            os.eventfd_write(self._wake, 1)
        return task.future

    @property
    def idle(self) -> int:
        return len(self._plain.idle)

    @property
    def warm(self) -> bool:
        return self._warm.is_ready

    def close(self) -> None:
        with self._lock:
            self._closing = True
            if self._thread.is_alive() and not self._ended:
                os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()

    # -- the engine's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException = SandboxError("the sandbox was closed before this program was judged")
        self._waiting: deque[Task] = deque()
        self._children: dict[int, Child] = {}  # by slot; every child that its server has not reported dead
        self._runs: dict[int, Run] = {}  # by slot
        self._partners: dict[int, Run] = {}  # by the slot of the child that runs the tests
        self._retired: list[Child] = []  # stopped, to be killed when there is time
        try:
            self._plain.server = self._plain.starter.start()
            self._register(self._plain)
            self.started.set_result(self._plain.server.report)
            while not self._closing:
                self._turn()
        except BaseException as error:
            failure = error
            if isinstance(error, OSError):  # descriptors, above all
                failure = SandboxError(f"the sandbox cannot go on: {error} {_SCARCE}")
            if not self.started.done():
                self.started.set_exception(failure)
            self._failure = failure
        with self._lock:
            self._closing = self._ended = True
            tasks = [*self._submitted, *self._waiting, *(run.task for run in self._runs.values())]
        for supply in (self._plain, self._warm):
            if supply.server is not None:
                supply.server.close()
        for child in self._children.values():
            child.close()
        for task in tasks:
            task.fail(failure)
        self._selector.close()
        os.close(self._wake)

    @property
    def _supplies(self) -> tuple[Supply, ...]:
        return (self._plain, self._warm) if self._warm.is_ready else (self._plain,)

    def _supply_of(self, task: Task) -> Supply:
        return self._warm if task.numpy and self._warm.is_ready else self._plain

    def _register(self, supply: Supply) -> None:
        self._selector.register(supply.server.control, selectors.EVENT_READ, lambda: self._on_server(supply))
        self._refill()

    def _warm_up(self) -> None:
        """Have a server that has numpy; nobody waits for it."""
        if self._warm.begin():
            self._selector.register(self._warm.server.control, selectors.EVENT_READ, self._on_warm)

    def _on_warm(self) -> None:
        self._selector.unregister(self._warm.server.control)
        if self._warm.admit(self._plain.server.report["level"]):
            self._register(self._warm)

    def _turn(self) -> None:
        events = self._selector.select(self._patience_s())
        for key, _ in events:
            key.data()
        now = time.monotonic()
        supplies = self._supplies
        idle = itertools.chain.from_iterable(supply.idle for supply in supplies)
        self._lookout.look([supply.server for supply in supplies], idle, self._runs.values())
        for run in [run for run in self._runs.values() if run.next_check <= now]:
            self._guarded(run, self._check_time)
        self._assign()

    @property
    def _a_core_is_free(self) -> bool:
        return not self._waiting and len(self._runs) < self._workers

    def _patience_s(self) -> float | None:
        """How long to wait for events; None: for ever."""
        until = math.inf
        if self._runs or self._waiting:
            until = min((run.next_check for run in self._runs.values()), default=math.inf)
            until = min(until, time.monotonic() + EVERY_S)
        if self._a_core_is_free and any(supply.lacks_some for supply in self._supplies):
            until = min(until, self._quiet_at)
        return None if until == math.inf else max(until - time.monotonic(), 0.0)

    def _on_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        while self._submitted:
            self._waiting.append(self._submitted.popleft())

    def _assign(self) -> None:
        while self._waiting and len(self._runs) < self._workers:
            idle = self._supply_of(self._waiting[0]).idle
            if len(idle) < self._waiting[0].children:
                break
            # A program that may be what kills children, or the fork server with all of them, runs alone.
            suspects = (self._waiting[0], *(run.task for run in self._runs.values()))
            if self._runs and any(task.deaths >= _SUSPICIOUS for task in suspects):
                break
            task = self._waiting.popleft()
            if task.began or task.future.set_running_or_notify_cancel():
                self._begin(task, [idle.popleft() for _ in range(task.children)])
        if not self._waiting and not self._runs:  # the last program must not wait for the burials, either
            for child in self._retired:
                child.kill()
            self._retired.clear()
        self._refill()

    def _refill(self) -> None:
        if self._a_core_is_free:
            quiet = time.monotonic() >= self._quiet_at
            for supply in self._supplies:
                supply.fill(self._workers, max(self._workers, _FILLED_AT_ONCE), quiet)
            return
        # While programs wait, forking ahead would only slow them down; then just enough for the next ones, and not
        # before they are nearly due, since forks in a row are cheaper.
        for supply in self._supplies:
            count, first = len(self._waiting), self._waiting[0] if self._waiting else None
            if self._warm.is_ready:
                nearly_due = itertools.islice(self._waiting, FORKS_IN_A_ROW * self._workers)
                its = [task for task in nearly_due if self._supply_of(task) is supply]
                count, first = len(its), its[0] if its else None
            each = first.children if first is not None else 1
            wanted = min(each * count, FORKS_IN_A_ROW * self._workers)
            supply.order(wanted, min(wanted, 2 * each * self._workers), each)

    def _begin(self, task: Task, children: list[Child]) -> None:
        """Start a task; whatever goes wrong with it is its own affair, and ends in its future."""
        self._quiet_at = time.monotonic() + _QUIET_S
        if not task.began:
            task.began, task.deaths_before = True, self._deaths
        try:
            run = (Session if len(children) > 1 else Run)(*children, task, task.next_tests())
            self._runs[run.child.slot] = run
            for child in children[1:]:
                self._partners[child.slot] = run
            run.hand_over()
        except Exception as error:
            for child in children:
                self._runs.pop(child.slot, None)
                self._partners.pop(child.slot, None)
                self._unregister(child)
                child.kill()
            kind = SandboxError if isinstance(error, OSError | MemoryError) else BadTests
            failure = kind(f"the program could not be handed over: {type(error).__name__}: {error}")
            failure.__cause__ = error
            task.fail(failure)

    def _run_of(self, child_slot: int) -> Run | None:
        """The run that a child is at work on."""
        return self._runs.get(child_slot) or self._partners.get(child_slot)

    def _on_server(self, supply: Supply) -> None:
        try:
            for message in supply.server.messages():
                if isinstance(message, Child):
                    self._children[message.slot] = message
                    self._selector.register(
                        message.connection, selectors.EVENT_READ, lambda child=message: self._on_child(child, supply)
                    )
                else:
                    self._on_exit(message, supply)
        except EOFError:
            self._on_server_death(supply)

    def _on_server_death(self, supply: Supply) -> None:
        self._deaths += 1
        runs = [run for slot, run in self._runs.items() if supply.owns(slot)]
        self._selector.unregister(supply.server.control)
        for child in [child for slot, child in self._children.items() if supply.owns(slot)]:
            self._unregister(child)
            child.close()
            for known in (self._children, self._runs, self._partners):
                known.pop(child.slot, None)
        self._retired = [child for child in self._retired if not child.closed]
        supply.server.close()
        supply.server = None
        supply.forget()
        for run in runs:
            self._worker_died(run.task, "the fork server died")
        if supply is self._plain:
            supply.server = supply.starter.again()
            self._register(supply)

    def _on_child(self, child: Child, supply: Supply) -> None:
        if child.closed:  # by an event before this one in the same turn
            return
        if child.pidfd < 0:  # its first word
            if child.ready():
                supply.ready(child)
            else:
                self._unregister(child)
            return
        run = self._run_of(child.slot)
        if isinstance(run, Session):
            run.flush(child, self._selector)
        try:
            data = child.connection.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:  # the program closed it, or the child has ended: its exit status will tell
            self._unregister(child)
        elif run is not None:
            self._guarded(run, self._read_reports)

    def _guarded(self, run: Run, step: Callable[..., None], *arguments: object) -> None:
        """Whatever a child may set off here must not reach the other programs, nor save its own from a verdict."""
        try:
            step(run, *arguments)
        except Exception:
            log.exception("a program's result could not be read")
            if run.child.slot in self._runs:
                run.task.record(result_of_report(run.task, DAMAGED, run.cpu_s(), run.wall_s()))
                self._release(run)

    def _read_reports(self, run: Run) -> None:
        if isinstance(run, Session):
            result = run.read(self._selector)
            if result is not None:
                run.task.record(result)
                self._release(run)
            return
        while run.child.slot in self._runs and (data := run.child.new_reports()):
            run.look()
            try:
                reports = run.reader.feed(data)
            except ValueError:
                reports = [DAMAGED]
            for report in reports:
                if report.header == wire.ALONE and not run.heard and len(run.tests) > 1:
                    run.tests = run.tests[:1]
                    run.task.one_by_one()
                else:
                    self._on_report(run, report)
                run.heard = True
                if run.child.slot not in self._runs:
                    return

    def _on_report(self, run: Run, report: wire.Report) -> None:
        task = run.task
        if report.header.get("closed") is True:
            report = report._replace(output=run.output())
        if len(run.tests) > 1:
            clocks = run.clocks(report)
            cpu_s, wall_s = clocks[0] - run.cpu_began, clocks[1] - run.began
        else:
            clocks, cpu_s, wall_s = None, run.cpu_s(), run.wall_s()
        taken = task.take(result_of_report(task, report, cpu_s, wall_s), run.position)
        run.position += 1
        if task.done or not taken or run.position == len(run.tests):
            self._release(run)
        else:
            run.begin_test(clocks)

    def _check_time(self, run: Run) -> None:
        if run.child.slot in self._runs:
            self._read_reports(run)
        if run.child.slot not in self._runs:
            return
        left_s = run.left_s()
        if left_s > 0 or any(child.stopped() for child in run.children):
            run.next_check = time.monotonic() + max(left_s, _CHECK_S)
            return
        run.task.record(run.explained(time_limit(run.task, run.output(), run.cpu_s(), run.wall_s())))
        self._release(run)

    def _on_exit(self, end: Exit, supply: Supply) -> None:
        child = self._children.pop(end.slot)
        run = self._run_of(end.slot)
        if run is not None:
            self._guarded(run, self._read_reports)  # one may still be in the socket
        if run is not None and run.child.slot in self._runs:
            self._guarded(run, self._take_exit, end)
        elif supply.died_waiting(child, end.status):
            self._deaths += 1
        self._unregister(child)
        child.close()

    def _take_exit(self, run: Run, end: Exit) -> None:
        result = run.result_of_exit(end)
        if result is not None:
            run.task.take(result, run.position)
            self._release(run)
        else:
            self._drop(run)
            self._deaths += 1
            self._worker_died(run.task, "the process that ran the program was killed from outside", end.peak_memory_mb)

    def _drop(self, run: Run) -> None:
        """Forget a run whose process is gone; the other one of a session has nothing to do any more."""
        del self._runs[run.child.slot]
        for child in run.children:
            self._partners.pop(child.slot, None)
            if child.slot in self._children:
                self._unregister(child)
                child.kill()

    def _release(self, run: Run) -> None:
        """The run is over: stop its process, whatever it is doing, and go on with the task."""
        self._quiet_at = time.monotonic() + _QUIET_S
        del self._runs[run.child.slot]
        for child in run.children:
            self._partners.pop(child.slot, None)
            self._unregister(child)
            # Ending a process costs as much time as running a short program.  While others wait, stopping has to do.
            if self._waiting and len(self._retired) < self._plain.pool and child.resident_kib() <= _RETIRED_KIB:
                child.stop()
                self._retired.append(child)
            else:
                child.kill()
        if run.task.numpy:
            self._warm_up()
        self._continue(run.task)

    def _worker_died(self, task: Task, why: str, peak_memory_mb: float = 0.0) -> None:
        others = self._deaths - task.deaths_before - (task.deaths + 1)
        task.worker_died(why, peak_memory_mb, others > 0)
        self._continue(task)

    def _continue(self, task: Task) -> None:
        if not task.done:
            self._waiting.appendleft(task)
            return
        self.tally.count(task.judgement)
        task.future.set_result(task.judgement)

    def _unregister(self, child: Child) -> None:
        if child.registered:
            child.registered = False
            self._selector.unregister(child.connection)
