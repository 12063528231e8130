"""Generation ahead of learning: while the learner works on one batch, the engines already sample the next ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Progress = Callable[[int], None]


class Prefetch(Generic[T]):
    """Makes the batches of steps 1, 2, …, at most `bound` of them ahead of the one that was asked for last.

    A batch is begun with the weights of the moment.  Batch k is begun when batch k − bound is asked for, that is after
    the weights of step k − bound − 1 were published, and learned from after those of step k − 1: it lags `bound`
    versions at most.  With bound 0 nothing is made ahead.
    """

    def __init__(self, make: Callable[[int, Progress], Awaitable[T]], bound: int, last: int) -> None:
        """`make`: step, and a function that hears of every few responses → the batch; `last`: the last step."""
        self._make, self._bound, self._last = make, bound, last
        self._tasks: dict[int, asyncio.Future[T]] = {}
        self._done: dict[int, int] = defaultdict(int)
        self._waits_for, self._progress = 0, lambda done: None

    def begin(self, step: int) -> None:
        """Begin the batch of `step` and those that may be ahead of it, if they are not under way."""
        for number in range(step, max(step, min(step + self._bound, self._last)) + 1):
            if number not in self._tasks:
                self._tasks[number] = asyncio.ensure_future(self._make(number, self._counter(number)))

    async def take(self, step: int, progress: Progress) -> T:
        """The batch of `step`; `progress` hears how many of its responses are there.

        Cancelled, it leaves the batches under way alone; `close` ends them.
        """
        self.begin(step)
        self._waits_for, self._progress = step, progress
        progress(self._done[step])
        try:
            return await asyncio.shield(self._tasks[step])
        finally:
            self._waits_for = 0
            if self._tasks[step].done():
                del self._tasks[step], self._done[step]

    def _counter(self, step: int) -> Progress:
        def count(responses: int) -> None:
            self._done[step] += responses
            if step == self._waits_for:
                self._progress(self._done[step])

        return count

    async def settled(self) -> None:
        """Once nothing is under way: what was begun is there, and nothing more has been asked for."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self) -> None:
        """Throw away what is under way."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
