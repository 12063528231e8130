"""Finds who was stopped from outside (SIGSTOP, a debugger): it does nothing, answers nothing, and takes no time."""

from __future__ import annotations

import time
from collections.abc import Iterable

from .run import Run
from .zygote import Child, Zygote

EVERY_S = 1.0


class Lookout:
    def __init__(self) -> None:
        self._looked = 0.0

    def look(self, servers: Iterable[Zygote], idle: Iterable[Child], runs: Iterable[Run]) -> None:
        """Kill them, once in a while; what they were at work on then begins again elsewhere."""
        now = time.monotonic()
        if now - self._looked < EVERY_S:
            return
        self._looked = now
        for server in servers:
            if server.stopped():
                server.kill()
        for child in (*idle, *(child for run in runs for child in run.children)):
            if child.stopped():
                child.kill()
