"""Starting the fork server, and starting it again where it was killed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .errors import IsolationUnavailable, SandboxError
from .zygote import Zygote

RESTARTS = 8  # in a row, without a single child in between

log = logging.getLogger("sandbox")


class Starter:
    def __init__(self, start: Callable[[], Zygote]) -> None:
        self.start = start
        self.in_a_row = 0  # restarts since the last child

    def again(self) -> Zygote:
        """Another one.  Raises SandboxError where none lives."""
        while True:
            self.in_a_row += 1
            if self.in_a_row > RESTARTS:
                many = f"the fork server died {self.in_a_row} times in a row"
                raise SandboxError(f"{many}; see `python -m sandbox doctor`")
            try:
                return self.start()
            except IsolationUnavailable:
                raise
            except SandboxError as error:  # killed while it started, perhaps
                log.warning("%s; trying again", error)
