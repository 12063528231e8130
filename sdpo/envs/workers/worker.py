"""A worker: takes a call, answers it, takes the next one.  It was forked by the server, the function is there."""

from __future__ import annotations

import inspect
import io
import json
import mmap
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

from sdpo.envs.workers import linux, wire


class TooMuchOutput(Exception):
    """Raised where a call prints on; whatever it makes of that, the call counts as one that flooded."""


class Output(io.TextIOBase):
    """Standard output and error: keeps the beginning of what is written, and refuses more than MAX_OUTPUT.

    Below Python's own streams, files 1 and 2 are a file of that size.
    """

    def __init__(self) -> None:
        self.parts, self.size = list[str](), 0
        self.below = -1

    def open_below(self) -> None:
        """Take over files 1 and 2; for each process its own."""
        self.below = linux.bounded_file(wire.MAX_OUTPUT)
        for standard in (1, 2):
            os.dup2(self.below, standard)

    def write(self, text: str) -> int:
        if self.size < wire.MAX_TEXT:
            self.parts.append(text[: wire.MAX_TEXT - self.size])
        self.size += len(text)
        if self.size > wire.MAX_OUTPUT:
            raise TooMuchOutput
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def take(self) -> tuple[str, bool]:
        """What was kept since the last time, and whether it was too much."""
        text, size = "".join(self.parts), self.size
        self.parts, self.size = [], 0
        if self.below >= 0 and (written := os.lseek(self.below, 0, os.SEEK_CUR)):
            text += os.pread(self.below, min(written, wire.MAX_TEXT), 0).decode(errors="replace")
            size = max(size, wire.MAX_OUTPUT + 1 if written >= wire.MAX_OUTPUT else 0)
            os.lseek(self.below, 0, os.SEEK_SET)
        return text[: wire.MAX_TEXT], size > wire.MAX_OUTPUT


class Loop:
    """An event loop for async functions, made when the first one needs it."""

    def __init__(self) -> None:
        self._runner: Any = None

    def run(self, value: Any) -> Any:
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(_wait_for(value))


def serve(channel: socket, function: Callable[..., Any], output: Output) -> None:
    """Answer calls until the driver is gone."""
    process, loop = os.getpid(), Loop()
    forked = mmap.mmap(-1, 1)  # shared with children: one that came here, too, says so
    # A child that a call forks and leaves alone must neither answer in its place nor hold the channel open.
    os.register_at_fork(after_in_child=channel.close)
    if "numpy.random" in sys.modules:  # forks must not draw the same numbers; Python's own generator sees to itself
        sys.modules["numpy.random"].seed()  # type: ignore[attr-defined]
    channel.sendall(wire.pack(json.dumps({"pid": process}).encode()))
    while (payload := wire.read(channel)) is not None:
        before = threading.active_count()
        reply = answer(payload, function, loop)
        if os.getpid() != process:
            forked[0] = 1
            os._exit(0)
        children = linux.children(process)
        left = any(map(linux.is_running, children)) or forked[0]  # in this order: it says so before it ends
        said, flooded = output.take()
        if flooded:
            reply = wire.encode({"output": f"it printed more than {wire.MAX_OUTPUT:,} characters"})
        elif left:
            reply = wire.encode({"processes": "it forked or left processes running, which were ended"})
        # Whatever goes on after the call would slow down the next one here.
        more = {"printed": said, "retire": bool(left or children or threading.active_count() > before)}
        channel.sendall(wire.pack(reply[:-1] + b", " + json.dumps(more).encode()[1:]))


def answer(payload: bytes, function: Callable[..., Any], loop: Loop) -> bytes:
    """The result of one call as a JSON object with one key: value, nonsense or error."""
    try:
        value = function(*pickle.loads(payload))
        if inspect.isawaitable(value):
            value = loop.run(value)
        return wire.encode({"value": value})
    except wire.Nonsense as reason:
        return wire.encode({"nonsense": wire.cut(str(reason))})
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the function's own here
        return wire.encode({"error": {"what": brief(error), "traceback": trace(error)}})


async def _wait_for(value: Any) -> Any:
    return await value


def brief(error: BaseException) -> str:
    """The exception in one line; its own text may fail, too."""
    try:
        return wire.cut("".join(traceback.format_exception_only(error)).strip(), 500)
    except Exception:
        return type(error).__name__


def trace(error: BaseException) -> str:
    """The traceback, without the frames of this package and of the import machinery above the user's."""
    here = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    while frames and (frames[0].filename.startswith((here, "<frozen")) or "/asyncio/" in frames[0].filename):
        del frames[0]
    return wire.cut("".join([*traceback.format_list(frames[-30:]), brief(error)]))
