"""A part of a run in processes of its own, and the calls to which it owes an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sdpo.errors import PartFailed, UserError

T = TypeVar("T")


@dataclass
class Clock:
    """One kind of call to a part.  It runs while calls are open, and starts again with every one that is answered: of
    a thousand requests to an engine some are always waiting, but while responses come the engine works."""

    open: int = 0
    since: float = 0.0
    lost: float = 0.0  # seconds that do not count: the machine was busy with others

    def elapsed(self, now: float) -> float:
        return max(now - self.since - self.lost, 0.0)


class Part:
    """`longest`: of every kind of call the most seconds without an answer so far; shared by parts of one kind."""

    def __init__(self, name: str, longest: dict[str, float]) -> None:
        self.name, self.longest = name, longest
        self.node = ""  # Ray's id of its machine; unknown until its process runs
        self.processes: dict[int, str] = {}  # process id → what that process is
        self.logs: tuple[str, ...] = ()  # of its first process, with all that descends from it
        self.growing = True  # while it starts it starts others, which are watched too
        self.clocks: dict[str, Clock] = {}
        self.failure: UserError | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def runs_in(
        self, node: str, processes: dict[int, str], complete: bool, logs: tuple[str, ...] | None = None
    ) -> None:
        """logs: None for those that are known already."""
        self.node, self.processes, self.growing = node, processes, not complete
        self.logs = self.logs if logs is None else logs

    @property
    def phase(self) -> str:
        """What it is doing."""
        return ", ".join(name for name, clock in self.clocks.items() if clock.open)

    def fail(self, cause: str | UserError) -> UserError:
        """Let every call to it end with this, those to come included.  The first cause counts."""
        if self.failure is None:
            self.failure = PartFailed(self.name, cause, self.phase) if isinstance(cause, str) else cause
            for future in self._waiting:
                if not future.done():
                    future.set_exception(self.failure)
        return self.failure

    def _begin(self, phase: str) -> asyncio.Future[None]:
        if phase:
            clock = self.clocks.setdefault(phase, Clock())
            if clock.open == 0:
                clock.since, clock.lost = time.monotonic(), 0.0
            clock.open += 1
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(broken)
        return broken

    def _end(self, phase: str, broken: asyncio.Future[None], answered: bool) -> None:
        self._waiting.discard(broken)
        if not broken.cancel():
            broken.exception()  # retrieved: another part's failure was raised
        if not phase:
            return
        clock, now = self.clocks[phase], time.monotonic()
        clock.open -= 1
        if answered:
            self.longest[phase] = max(self.longest.get(phase, 0.0), clock.elapsed(now))
            clock.since, clock.lost = now, 0.0


async def answered(parts: Sequence[Part], phase: str, work: Awaitable[T]) -> T:
    """The result of `work`, which all of `parts` must stay alive for.

    phase: the kind of call, for its time limit; "" for work that is no call and has none.  As soon as one of the parts
    has failed, `work` is cancelled and that failure raised.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(retrieved)
    broken = [part._begin(phase) for part in parts]
    try:
        for part in parts:
            if part.failure is not None:
                raise part.failure
        await asyncio.wait((task, *broken), return_when=asyncio.FIRST_COMPLETED)
        for future in broken:
            if future.done():
                future.result()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))  # it may hold a lock
        done = task.done() and not task.cancelled() and task.exception() is None
        for part, future in zip(parts, broken, strict=True):
            part._end(phase, future, done)


def retrieved(task: asyncio.Future[T]) -> None:
    """Of a task that is given up, nobody need ask how it ended; asyncio would print that with a traceback."""
    if not task.cancelled():
        task.exception()
