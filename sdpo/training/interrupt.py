"""Ctrl-C, SIGTERM and SIGHUP: the first one stops a run at the next safe point and saves it, the second one at once.

`Signals` hears them from the first moment of a command to its last, `Interrupt` answers them while there is something
to save.  Exit status of whatever a signal ends: `STOPPED`.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

STOPPED = 130
STEP_LIMIT_S = 30.0  # that a stop waits for the step under way
SAVE_LIMIT_S = 90.0  # … for the checkpoint
END_LIMIT_S = 30.0  # … for the parts to end, before they are killed
_ECHO_S = 0.25  # so soon, a second signal has the first one's cause: `timeout` signals the process and then its group
_ENDING_LIMIT_S = 12.0  # of the work that is left when a run ends at once


class Stopped(Exception):
    """The user asked to stop, at a point where the state of the run is whole."""


class Signals:
    """Hears the signals in a thread of its own: imports, Ray's start or a hung call may hold up the main thread.

    The main thread blocks them, and so do the processes that it starts: neither Ctrl-C in a terminal nor a signal to
    the whole process group ends a part of the run before the driver has saved it.  A SIGHUP that was ignored when the
    command began (nohup) stays ignored.  Outside the main thread, nothing is heard.
    """

    active: Signals | None = None

    def __init__(self) -> None:
        self.listener: Interrupt | None = None
        self.ending = False
        self.over: int | None = None  # the exit status of a run that has come to its end
        self._actions: list[Callable[[], None]] = []
        self._deadline: tuple[float, str] | None = None
        self._asked = -math.inf  # when the run was asked to stop

    def __enter__(self) -> Signals:
        if Signals.active is not None or threading.current_thread() is not threading.main_thread():
            return self
        Signals.active = self
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        self._ours, self._kernels = socket.socketpair()
        self._kernels.setblocking(False)
        self._before = {number: signal.getsignal(number) for number in numbers}
        self.claim()
        self._wakeup = signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()  # which blocks nothing: the kernel hands the signals to it
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        return self

    def __exit__(self, *_: object) -> None:
        if Signals.active is not self:
            return
        if self.ending:
            self._thread.join()  # it ends the process
        signal.set_wakeup_fd(self._wakeup)
        self._kernels.close()
        self._thread.join()
        self._ours.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        Signals.active = None

    def again(self) -> None:
        """Another run begins in this command, and a signal ends the command before that one's end."""
        self.over = None

    def claim(self) -> None:
        """Take the signals; again after `ray.init`, which takes SIGTERM for itself."""
        for number in self._before:
            signal.signal(number, _heard)

    def allow(self, seconds: float, otherwise: str) -> None:
        """From now on the run has so long to come to an end by itself; then it ends at once, and this is said."""
        self._deadline = time.monotonic() + seconds, otherwise
        with suppress(OSError):  # nobody listens any more: the command is over
            self._kernels.send(b"\0")

    def allow_any(self) -> None:
        """From now on it may take as long as it takes; a signal ends it at once."""
        self._deadline = None
        with suppress(OSError):
            self._kernels.send(b"\0")

    def _listen(self) -> None:
        while True:
            try:
                left = None if self._deadline is None else max(0.001, self._deadline[0] - time.monotonic())
                self._ours.settimeout(left)
                data = self._ours.recv(1)
            except TimeoutError:
                if self._deadline is not None and time.monotonic() >= self._deadline[0]:
                    self.end(self._deadline[1])
                continue
            if not data:
                return
            if data[0] in self._before:
                self._on_signal(signal.Signals(data[0]).name)

    def _on_signal(self, name: str) -> None:
        if name == "SIGHUP":
            _leave_dead_terminal()
        if self.over is not None:
            self.end(f"Ended at once by {name}; the run had come to its end.")
        elif self.listener is None:
            self.end(f"Stopped by {name}. Nothing had to be saved; the same command starts again.")
        elif self.listener.stopping:
            if time.monotonic() - self._asked < _ECHO_S:
                return
            self.end(
                f"Stopped at once by a second signal ({name}): what was under way is not saved. The same command goes "
                "on from the last checkpoint."
            )
        else:
            self._asked = time.monotonic()
            self.listener.ask(name)

    def end(self, line: str) -> None:
        """End the process now, with what `at_end` registered and nothing else: no destructors, no stack of C++."""
        self.ending = True
        status = STOPPED if self.over is None else self.over
        last_resort = threading.Timer(_ENDING_LIMIT_S, os._exit, (status,))
        last_resort.daemon = True
        last_resort.start()
        with suppress(Exception):
            # A panel that is being drawn hides the cursor.
            cursor = "\x1b[?25h\n" if sys.stdout.isatty() else ""
            print(f"{cursor}{line}", file=sys.__stderr__, flush=True)
            _hush()  # what the main thread, and libraries in C++, say of processes that are killed under them
        for action in list(self._actions):
            with suppress(Exception):
                action()
        os._exit(status)


def _heard(*_: object) -> None:
    """The handler in the main thread: the thread of `Signals` has been told already."""


def _leave_dead_terminal() -> None:
    """After its terminal is gone, whatever the run prints would raise an error."""
    for fd in (1, 2):
        try:
            os.write(fd, b"")
        except OSError:
            _hush(fd)


def _hush(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in descriptors or (1, 2):
        os.dup2(null, fd)
    os.close(null)


@contextmanager
def at_end(action: Callable[[], None]) -> Iterator[None]:
    """Have `action` done, by another thread, if a signal ends the process at once within this block; in order."""
    actions = Signals.active._actions if Signals.active is not None else []
    actions.append(action)
    try:
        yield
    finally:
        actions.remove(action)


def _after_fork_in_child() -> None:
    """A forked child keeps its parent's mask, for what it starts; its signals are no business of the parent's."""
    if Signals.active is not None:
        signal.set_wakeup_fd(-1)
        for number, handler in Signals.active._before.items():
            with suppress(ValueError):  # forked by another thread than the main one
                signal.signal(number, handler)
        Signals.active = None


os.register_at_fork(after_in_child=_after_fork_in_child)


class Interrupt:
    """Turns the first signal into a request that the loop answers at points where its state is whole.

    What may be thrown away (generation, judging, evaluation) is awaited through `unless_stopped` and cancelled at once;
    an update of the weights is left to finish, for `limit_s`: one that hangs, or takes longer, is lost with the steps
    since the last checkpoint.
    """

    def __init__(self, tell: Callable[[str], None], limit_s: float = STEP_LIMIT_S) -> None:
        self._tell, self._event, self._limit_s = tell, asyncio.Event(), limit_s
        self._loop = asyncio.get_running_loop()
        self._own = Signals()
        self.stopping = False
        self.signal = ""  # the name of the one that asked

    def __enter__(self) -> Interrupt:
        self._own.__enter__()  # where the command has not done so
        if Signals.active is not None:
            Signals.active.listener = self
        return self

    def __exit__(self, *_: object) -> None:
        if Signals.active is not None:
            Signals.active.listener = None
        self._own.__exit__()

    def ask(self, name: str) -> None:
        """Ask the loop to stop, from another thread."""
        self.stopping, self.signal = True, name
        self._allow(  # before the loop knows, which sets limits of its own
            self._limit_s,
            f"Stopped by {name}: the step under way was not complete after {self._limit_s:.0f} s and is not saved. The "
            "same command goes on from the last checkpoint.",
        )
        with suppress(RuntimeError):  # the loop is closed: it has come to its end
            self._loop.call_soon_threadsafe(self._event.set)
        self._tell("Stopping: saving the last complete step. Press Ctrl-C again to stop at once without saving.")

    def saving(self) -> None:
        """The loop has stopped; from now on its checkpoint is what takes time."""
        self._allow(
            SAVE_LIMIT_S,
            f"The checkpoint was not complete after {SAVE_LIMIT_S:.0f} s. The same command goes on from the last one.",
        )

    def ended(self) -> None:
        """All is saved, or there was nothing to save; what is left is to end the parts."""
        if self.stopping:
            self._allow(END_LIMIT_S, "Stopped; what did not end by itself is killed. The same command goes on.")

    @staticmethod
    def over(status: int) -> None:
        """The run has come to its end: whatever signal comes now, this is the command's exit status."""
        if Signals.active is not None:
            Signals.active.over = status

    def _allow(self, seconds: float, otherwise: str) -> None:
        if Signals.active is not None:
            Signals.active.allow(seconds, otherwise)

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
