"""Watches every part of a run: processes that are dead or stopped, calls that take too long, Ray itself.

What is noticed ends the calls to that part (`Part.fail`); the engine pool and the trainer then replace it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil
import ray

from sdpo.config.sections import SupervisionSettings
from sdpo.errors import UserError
from sdpo.learner.group import Learner
from sdpo.rollout.pool import EnginePool
from sdpo.supervision.limits import Limits, machine_share
from sdpo.supervision.part import Part
from sdpo.supervision.processes import ProcessTable
from sdpo.supervision.watch import Watch


class RayLost(UserError):
    """Ray's own processes are gone: there is nothing left to restart a part with."""

    def __init__(self, wrong: str) -> None:
        super().__init__(
            f"Ray, which runs the engines and the learner, is lost: {wrong}. Nothing can be restarted without it. The "
            "same command goes on from the last checkpoint."
        )


class Supervision:
    """async with Supervision(settings, pool, learner, tell): …"""

    def __init__(
        self, settings: SupervisionSettings, pool: EnginePool, learner: Learner, tell: Callable[[str], None]
    ) -> None:
        """`tell` hears at once that Ray is lost; the run's end, which says it too, may take a while."""
        self.pool, self.learner, self._tell = pool, learner, tell
        self.interval = settings.heartbeat_s
        self.limits = Limits(settings.floor_s, settings.factor, settings.first_s)
        self.watch = pool.watch = learner.watch = Watch(settings.floor_s)
        if learner.teachers is not None:
            learner.teachers.watch = self.watch
        self.processor_s = 0.0  # that all looks took, for measurements
        self._ray = RayHealth(settings.floor_s)

    async def __aenter__(self) -> Supervision:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def parts(self) -> list[Part]:
        teachers = self.learner.teachers
        return [*self.pool.parts, *self.learner.parts, *(() if teachers is None else teachers.parts)]

    async def _run(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(self.interval)
            now, worked = time.monotonic(), time.thread_time()
            self._slow_down(now - before)
            before = now
            if wrong := self._ray.trouble():
                self._tell(f"Ray is lost ({wrong}): the run ends.")
                self._end(RayLost(wrong))
                return
            causes = await self.watch.look(self.parts)
            for part, cause in (self._overdue() | causes).items():
                failure = part.fail(cause)
                self.pool.lose(part, failure)  # a learner's part is none of its, and is left to the trainer
                if self.learner.teachers is not None:
                    self.learner.teachers.lose(part, failure)
            self.processor_s += time.thread_time() - worked

    def _slow_down(self, seconds: float) -> None:
        """Set the clocks of open calls back where the machine had to share its cores, or this process stood still."""
        counted = min(seconds, 2 * self.interval) * machine_share()
        for part in self.parts:
            for clock in part.clocks.values():
                if clock.open:
                    clock.lost += seconds - counted

    def _overdue(self) -> dict[Part, str]:
        now, found = time.monotonic(), {}
        for part in self.parts:
            begun = {phase: clock for phase, clock in part.clocks.items() if clock.open}
            limit = sum(self.limits.of(part.longest.get(phase)) for phase in begun)  # a short call waits for a long one
            for phase, clock in begun.items():
                if (elapsed := clock.elapsed(now)) > limit:
                    found[part] = f"no answer for {elapsed:.0f} s ({phase}; at most {limit:.0f} s were expected)"
        return found

    def _end(self, error: RayLost) -> None:
        self._ray.kill()
        for part in self.parts:
            part.fail(error)


def _is_ours(raylet: psutil.Process) -> bool:
    """Whether it is the one of this node; a test may have started several."""
    return f"--node_id={ray.get_runtime_context().get_node_id()}" in raylet.cmdline()


class RayHealth:
    """Whether Ray lives: its processes, where this process started them, else an answer from the cluster."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._table = ProcessTable()
        self._processes = {
            child.pid: child.name()
            for child in psutil.Process().children()
            if child.name() == "gcs_server" or (child.name() == "raylet" and _is_ours(child))
        }
        self._asked = self._answered = time.monotonic()
        self._alive = True
        self._thread: threading.Thread | None = None

    def trouble(self) -> str | None:
        """What is wrong."""
        return self._of_processes() if self._processes else self._of_cluster()

    def kill(self) -> None:
        """End what is left of it here: with a control process that is stopped, Ray's own end would wait for it."""
        self._table.kill(self._processes)

    def _of_processes(self) -> str | None:
        found = self._table.look(self._processes)
        return next((f"{self._processes[pid]} (process {pid}) {what}" for pid, what in found.items()), None)

    def _of_cluster(self) -> str | None:
        """Asked in a thread: a call to a control process that is gone does not return for a minute."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._ask, name="ray-health", daemon=True)
            self._asked = time.monotonic()
            self._thread.start()
        if not self._alive:
            return "this machine is no longer a part of the cluster"
        waited = time.monotonic() - max(self._answered, self._asked)
        return f"its control process has not answered for {waited:.0f} s" if waited > self._patience else None

    def _ask(self) -> None:
        with contextlib.suppress(Exception):
            here = ray.get_runtime_context().get_node_id()
            self._alive = any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())
            self._answered = time.monotonic()
            time.sleep(2.0)
