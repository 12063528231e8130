"""Engines in simulated time: an asyncio loop whose clock jumps to the next event, and engines that decode by the clock.

The code under test runs as it is, with real tasks and futures; only `asyncio.sleep` and what stands on it take no time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoWaiting(selectors.SelectSelector):
    """Waits for nothing, sees nothing, and tells the clock how long it should have waited."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is left to happen, and somebody still waits")
        self._passed(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` is in simulated seconds from 0."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWaiting(self._pass))

    def _pass(self, seconds: float) -> None:
        self._now += max(0.0, seconds)

    def time(self) -> float:
        return self._now


def simulate(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a program to its end in simulated time."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


class SimulatedEngine:
    """Decodes all its responses together, one token each per pass; a pass takes `base` + `each` · responses seconds.

    Args:
        slots: responses that it decodes at once; others wait.
    """

    def __init__(self, base: float, each: float, slots: int) -> None:
        self._base, self._each, self._slots = base, each, slots
        self._passes = 0.0  # so far
        self._since = 0.0  # when that was
        self._paused = False
        self._running: list[tuple[float, int, float, asyncio.Future[float]]] = []  # last pass, number, began, done
        self._queue: deque[tuple[int, asyncio.Future[float]]] = deque()
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self.busy_seconds = 0.0  # with a response under way, pauses included
        self.sequence_seconds = 0.0  # the same, summed over the responses that have a slot

    @property
    def load(self) -> int:
        """Responses under way, those that wait included."""
        return len(self._running) + len(self._queue)

    def generate(self, tokens: int) -> asyncio.Future[float]:
        """A response, under way from now on; its result is when its first pass began."""
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append((tokens, done))
        self.settle()
        return done

    def pause(self) -> None:
        self.settle()
        self._paused = True
        self.settle()

    def resume(self) -> None:
        self.settle()
        self._paused = False
        self.settle()

    def settle(self) -> None:
        """Everything up to now."""
        loop = asyncio.get_running_loop()
        passed, self._since = loop.time() - self._since, loop.time()
        if self._running:
            self.busy_seconds += passed
            self.sequence_seconds += passed * len(self._running)
            if not self._paused:
                self._passes += passed / self._pass_seconds
        while self._running and self._running[0][0] <= self._passes + 1e-6:
            *_, began, done = heapq.heappop(self._running)
            done.set_result(began)
        while self._queue and len(self._running) < self._slots:
            tokens, done = self._queue.popleft()
            heapq.heappush(self._running, (self._passes + tokens, next(self._numbers), loop.time(), done))
        if self._timer is not None:
            self._timer.cancel()
        if self._running and not self._paused:
            left = (self._running[0][0] - self._passes) * self._pass_seconds
            self._timer = loop.call_later(max(0.0, left), self.settle)

    @property
    def _pass_seconds(self) -> float:
        return self._base + self._each * len(self._running)
