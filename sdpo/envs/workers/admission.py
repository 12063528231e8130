"""Who runs and who waits: `workers` places, which calls that wait for something else, or compute too long, give back.

A call that sleeps costs no core, and one that computes far longer than others do is likely to be without an end; were
they to keep their places, everything else would stand behind them until their time limit.  What a call does is seen
when it has run for a moment; until then it takes as much of a place as calls of late wanted a core.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sdpo.envs.workers import linux

MOST = 512  # processes at once, whatever they do
FIRST_LOOK_S = 0.02  # a call that is done by then is never looked at
ASK_AGAIN_S = 0.11  # for a lower priority
ASLEEP = 0.5  # share of its time that a call neither ran nor wanted to
PATIENCE_S = 0.02  # that a call may compute before it counts as a long one
TYPICAL = 3.0  # times what calls usually take is long
USUAL_CALLS = 200  # of which "usually" is known
LATE_CALLS = 20  # of which it is known how many wanted a core
LEAST = 0.1  # of a place that a call takes
MORE_IN_QUEUE = 1.5  # times its limit is the most that a call may take, cores or none


class Admission:
    """Places of a pool."""

    def __init__(self, workers: int, time_limit_s: float, most: int = MOST) -> None:
        self.workers, self.time_limit_s, self.most = workers, time_limit_s, max(most, workers)
        self.reset()

    def reset(self) -> None:
        """Forget all who wait; for a new event loop."""
        self.new = self.busy = self.running = 0  # calls not looked at yet; found to want a core; all
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._usual: deque[float] = deque(maxlen=USUAL_CALLS)
        self._wanted: deque[bool] = deque(maxlen=LATE_CALLS)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Waits for a place; it is left with the block at the latest."""
        await self._enter()
        place = Place(self)
        try:
            yield place
        finally:
            place.done()
            place.leave()
            self.running -= 1
            self.admit()

    async def _enter(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.admit()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():  # admitted in the same moment
                self.new, self.running = self.new - 1, self.running - 1
                self.admit()
            raise

    def admit(self) -> None:
        """Let as many of those that wait run as there are places."""
        while self._waiting and self.busy + self.new * self.share < self.workers and self.running < self.most:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self.new, self.running = self.new + 1, self.running + 1
                waiting.set_result(None)

    @property
    def share(self) -> float:
        """Of a place, what a call is expected to need."""
        return max(LEAST, (sum(self._wanted) + 1) / (len(self._wanted) + 1))

    def seen(self, wants_core: bool) -> None:
        """A call that was new is not so any more."""
        self._wanted.append(wants_core)
        self.new -= 1
        self.busy += wants_core
        self.admit()

    def left(self) -> None:
        """One of those that want a core gave back its place."""
        self.busy -= 1
        self.admit()

    def learn(self, seconds: float) -> None:
        """How long a call computed that came to its end."""
        self._usual.append(seconds)

    @property
    def patience(self) -> float:
        """Seconds after which a call that computes is a long one."""
        if not self._usual:
            return max(PATIENCE_S, self.time_limit_s / 4)
        slow = statistics.quantiles(self._usual, n=10)[-1] if len(self._usual) > 10 else max(self._usual)
        return max(PATIENCE_S, TYPICAL * slow)


class Place:
    """Of one call: whether it counts among those that run, and how much of its time is gone."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.demoted = False  # it runs on idle cores only
        self._new, self._held = True, False  # not looked at yet; holds a place for one that wants a core
        self._looking: asyncio.TimerHandle | None = None
        self._pid = 0
        self._began = self._looked = time.monotonic()
        self._at_begin = self._at_look = linux.Usage()

    def watch(self, pid: int) -> None:
        """The call begins, in this process."""
        self._pid, self._began = pid, time.monotonic()
        self._looked = self._began
        self._at_begin = self._at_look = linux.usage(pid)
        self._look_again(FIRST_LOOK_S)

    def _look_again(self, seconds: float) -> None:
        self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        now, usage = time.monotonic(), linux.usage(self._pid)
        span, spent = now - self._looked, usage.since(self._at_look)
        self._looked, self._at_look = now, usage
        asleep = spent.ran + spent.waited < (1 - ASLEEP) * span
        self._found(wants_core=not asleep)
        if asleep:
            self.leave()
        elif usage.since(self._at_begin).ran >= self.admission.patience:
            self.demoted = True
            self._demote()
            self.leave()
        else:
            self._look_again(max(FIRST_LOOK_S, (now - self._began) / 2))

    def _demote(self) -> None:
        if not linux.only_when_idle(self._pid):
            self._looking = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._demote)

    def _found(self, wants_core: bool) -> None:
        if self._new:
            self._new, self._held = False, wants_core
            self.admission.seen(wants_core)

    def left(self) -> float:
        """Seconds until the limit can have been reached."""
        to_most = self._began + MORE_IN_QUEUE * self.admission.time_limit_s - time.monotonic()
        return max(0.01, min(to_most, self.admission.time_limit_s - self._charged()))

    def expired(self) -> bool:
        most = MORE_IN_QUEUE * self.admission.time_limit_s
        return self._charged() >= self.admission.time_limit_s or time.monotonic() - self._began >= most

    def _charged(self) -> float:
        took = time.monotonic() - self._began
        if took < self.admission.time_limit_s:  # the kernel need not be asked
            return took
        return max(0.0, took - linux.usage(self._pid).since(self._at_begin).waited)

    def done(self) -> None:
        """The call is over."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def computed(self) -> float:
        """Seconds that it ran so far."""
        return linux.usage(self._pid).since(self._at_begin).ran

    def leave(self) -> None:
        """Let the next one run."""
        self._found(wants_core=True)  # one that is over before anybody looked
        if self._held:
            self._held = False
            self.admission.left()
