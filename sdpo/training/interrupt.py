"""Ctrl-C: the first one stops a run at the next safe point and saves it, the second one at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The user asked to stop, at a point where the state of the run is whole."""


class Interrupt:
    """Turns SIGINT and SIGTERM into a request that the loop answers at points where its state is whole.

    What may be thrown away (generation, judging, evaluation) is awaited through `unless_stopped` and cancelled at once;
    an update of the weights is left to finish.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._event = tell, asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    @property
    def stopping(self) -> bool:
        return self._event.is_set()

    def _on_signal(self) -> None:
        if self.stopping:
            self.__exit__()  # the default handlers are back: a third signal needs no cooperation at all
            raise KeyboardInterrupt
        self._event.set()
        self._tell("Stopping: saving the last complete step. Press Ctrl-C again to stop at once without saving.")

    def check(self) -> None:
        """Raise Stopped if the user asked to stop."""
        if self.stopping:
            raise Stopped

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`; if the user stops the run meanwhile, cancel it and raise Stopped."""
        task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            for future in (task, stopped):
                future.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
