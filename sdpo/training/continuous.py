"""Continuous generation: groups are begun one by one, and learned from when they are ready, whichever they are.

A batch that is sampled as a whole keeps its engines waiting for its longest response.  Here a group begins as soon as
responses of earlier ones have left it room, also in the middle of a step, and a step learns from those that are ready.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
Progress = Callable[[int], None]


class Continuous(Generic[T]):
    """Batches of a run's groups, which are numbered in the order in which they begin.

    The bound: a group that began with version v may be learned from in step v + `bound` at the latest, its *last step*;
    none of its tokens is older than its beginning, so none lags by more than `bound` versions.  Two rules keep it:
    * so many groups begin, and no more, as the steps up to a last step can learn from: size · (v + bound) by version v;
    * a step takes the groups in the order in which they got ready, but passes over one that would leave those with an
      earlier last step too little room.  It waits where not enough are ready, a group in its last step included.

    So every group that begins is learned from exactly once, however long it takes, and a run of `last` steps begins
    and learns from the same groups as one that samples them batch by batch.
    """

    def __init__(
        self,
        make: Callable[[int, Progress], Awaitable[T]],
        *,
        size: int,
        responses: int,
        at_once: int,
        bound: int,
        done: int,
        last: int,
    ) -> None:
        """
        Args:
            make: number of a group, and a function that hears how many more of its responses are finished → the group.
            size: groups of a batch.
            responses: of a group.
            at_once: responses under way, beyond which no group begins.
            bound: versions by which a token may lag, at least 1.
            done: steps that other objects saw to; the first group is number done · size.
            last: the last step.
        """
        self._make, self._size, self._responses, self._at_once = make, size, responses, at_once
        self._bound, self._last = bound, last
        self._begun, self._version = done * size, done + 1
        self._running: dict[int, asyncio.Future[T]] = {}
        self._ready: dict[int, T] = {}  # in the order in which they got ready
        self._last_step: dict[int, int] = {}  # of running and ready ones …
        self._ends: Counter[int] = Counter()  # … how many have which …
        self._ready_ends: Counter[int] = Counter()  # … and of the ready ones
        self._unfinished: dict[int, int] = {}  # responses of running ones …
        self._busy = 0  # … and their sum
        self._given: tuple[int, list[int]] = done, []  # the last step that took a batch, and what it took
        self._failed: BaseException | None = None
        self._held, self._waits, self._changed = False, False, asyncio.Event()
        self._progress: Progress = lambda done: None

    async def take(self, step: int, progress: Progress) -> list[T]:
        """A batch for `step`, whose version the engines hold, by number; `progress` hears how much of it is there.

        Cancelled, it leaves the groups under way alone; `close` ends them.  Raises what a group raised.
        """
        self._version, self._held, self._waits, self._progress = step, False, True, progress
        try:
            while not (chosen := self._chosen(step)):
                if self._failed is not None:
                    raise self._failed
                self._begin()
                self._tell()
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waits, self._progress = False, lambda done: None
        self._given = step, chosen
        for number in chosen:
            last = self._last_step.pop(number)
            self._ends[last] -= 1
            self._ready_ends[last] -= 1
        batch = [self._ready.pop(number) for number in chosen]
        self._begin()
        return batch

    def _chosen(self, step: int) -> list[int]:
        """What a step takes; empty while it cannot be filled.

        Of the groups whose last step is t or earlier, all but the size · (t − step) that later steps can take must be
        among them, for every t: what is left of the batch is the room for groups with a later last step.
        """
        room, due = {step - 1: self._size}, 0
        for t in range(step, step + self._bound):
            due += self._ends[t]
            room[t] = self._size - max(0, due - self._size * (t - step))
        fit = 0
        for t in range(step + self._bound, step - 1, -1):
            fit = min(fit + self._ready_ends[t], room[t - 1])
        if fit < self._size:
            return []
        chosen: list[int] = []
        for number in self._ready:
            earlier = range(step - 1, self._last_step[number])
            if all(room[t] for t in earlier):
                chosen.append(number)
                for t in earlier:
                    room[t] -= 1
        return sorted(chosen)

    def _begin(self) -> None:
        """Begin what may begin now.  While the learner works, nothing beyond a whole batch that waits for it."""
        most = self._size * min(self._version + self._bound, self._last)
        while self._begun < most and not self._held and self._failed is None:
            if self._busy and self._busy + self._responses > self._at_once:
                return
            if len(self._ready) >= self._size and not self._waits:
                return
            number, self._begun = self._begun, self._begun + 1
            self._last_step[number], self._unfinished[number] = self._version + self._bound, self._responses
            self._ends[self._version + self._bound] += 1
            self._busy += self._responses
            self._running[number] = asyncio.ensure_future(self._make(number, partial(self._finished, number)))
            self._running[number].add_done_callback(partial(self._ended, number))

    def _finished(self, number: int, responses: int) -> None:
        self._unfinished[number] -= responses
        self._busy -= responses
        self._begin()
        self._tell()

    def _ended(self, number: int, task: asyncio.Future[T]) -> None:
        if self._running.pop(number, None) is None or task.cancelled():
            return  # closed
        self._busy -= self._unfinished.pop(number)
        if (error := task.exception()) is not None:
            self._failed = error
        else:
            self._ready[number] = task.result()
            self._ready_ends[self._last_step[number]] += 1
        self._begin()
        self._tell()
        self._changed.set()

    def _tell(self) -> None:
        most = self._size * self._responses
        there = self._responses * len(self._last_step) - self._busy
        self._progress(min(there, most))

    def unlearned(self, step: int) -> list[int]:
        """The groups that have begun, and that no step up to this one has learned from."""
        given, numbers = self._given
        return sorted([*self._last_step, *(numbers if given > step else ())])

    async def settled(self) -> None:
        """Once nothing is under way; nothing more begins before the next batch is asked for."""
        self._held = True
        if self._running:
            await asyncio.wait(self._running.values())

    async def close(self) -> None:
        """Throw away what is under way."""
        tasks = list(self._running.values())
        self._held = True
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
