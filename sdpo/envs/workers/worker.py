"""A worker: takes a call, answers it, takes the next one.  It was forked by the server, the function is there."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
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


class Output(io.TextIOBase):
    """Stands for standard output and error: keeps the beginning of what is written, and lets the rest go."""

    def __init__(self, limit: int = wire.MAX_TEXT) -> None:
        self.limit, self.parts, self.size = limit, list[str](), 0

    def write(self, text: str) -> int:
        if self.size < self.limit:
            self.parts.append(text[: self.limit - self.size])
        self.size += len(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def take(self) -> str:
        """What was kept since the last time."""
        text, more = "".join(self.parts), self.size - self.limit
        self.parts, self.size = [], 0
        return text + (f"\n… {more:,} more characters" if more > 0 else "")


def serve(channel: socket, function: Callable[..., Any], output: Output) -> None:
    """Answer calls until the driver is gone."""
    process = os.getpid()
    # A child that a call forks and leaves alone must neither answer in its place nor hold the channel open.
    os.register_at_fork(after_in_child=channel.close)
    _seed()
    with asyncio.Runner() as runner:
        channel.sendall(wire.pack(json.dumps({"pid": process}).encode()))
        while (payload := wire.read(channel)) is not None:
            before = threading.active_count()
            reply = answer(payload, function, runner)
            if os.getpid() != process:
                os._exit(0)
            # Whatever goes on after the call would slow down the next one here.
            left = threading.active_count() > before or linux.children(process)
            more = {"output": output.take(), "left_behind": bool(left)}
            channel.sendall(wire.pack(reply[:-1] + b", " + json.dumps(more).encode()[1:]))


def answer(payload: bytes, function: Callable[..., Any], runner: asyncio.Runner) -> bytes:
    """The result of one call as a JSON object with one key: value, nonsense or error."""
    try:
        value = function(*pickle.loads(payload))
        if inspect.isawaitable(value):
            value = runner.run(_wait_for(value))
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


def _seed() -> None:
    """Forks of one process must not draw the same numbers; Python's own generator sees to itself."""
    if (numpy := sys.modules.get("numpy")) is not None:
        with contextlib.suppress(Exception):
            numpy.random.seed()
