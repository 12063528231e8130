"""A fork server and the children that it makes, from the order to the program that takes them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .errors import SandboxError
from .starter import RESTARTS, Starter
from .zygote import Child, Zygote

FORKS_IN_A_ROW = 8
_STILLBORN = 100  # in a row: children that died before they could take a program

log = logging.getLogger("sandbox")


class Supply:
    """Of children in which nothing but the interpreter and the prelude is loaded."""

    def __init__(self, start: Callable[[], Zygote], pool: int, place: int = 0) -> None:
        """pool: children kept ready while nothing runs.  place: among the supplies; see `Zygote`."""
        self.starter, self.pool, self.place = Starter(start), pool, place
        self.server: Zygote | None = None
        self.idle: deque[Child] = deque()
        self.forget()

    def forget(self) -> None:
        """The server is gone, and with it all that it had made."""
        self.idle.clear()
        self.coming = 0  # children asked for and not ready yet
        self._stillborn = 0

    def owns(self, slot: int) -> bool:
        return slot % Zygote.PLACES == self.place

    def order(self, wanted: int, enough: int, each: int) -> None:
        """For programs that wait: children up to `wanted`, unless there are `enough`; `each`: that a program takes."""
        have = len(self.idle) + self.coming
        self.server.assertions |= each > 1
        if have < enough:
            self._request(wanted - have, rehearse=False)

    @property
    def lacks_some(self) -> bool:
        """Whether children should be made for later, and none is under way."""
        return not self.coming and len(self.idle) < self.pool

    def fill(self, spare: int, in_a_row: int, quiet: bool) -> None:
        """Make children for later: `spare` ones at once, as fast as that goes; the others when it is quiet, warmed up.

        These few at a time, since a program that comes meanwhile has to share the cores with them.
        """
        missing = min(spare, self.pool) - len(self.idle)
        if missing > 0 and not self.coming:
            self._request(missing, rehearse=False)
        elif quiet and self.lacks_some:
            self._request(min(self.pool - len(self.idle), in_a_row), rehearse=True)

    def _request(self, count: int, rehearse: bool) -> None:
        self.coming += count
        with suppress(OSError):  # the server is gone; its socket says so in the next turn
            for left in range(count, 0, -FORKS_IN_A_ROW):
                self.server.request(min(left, FORKS_IN_A_ROW), rehearse)

    def ready(self, child: Child) -> None:
        self.coming -= 1
        self._stillborn = 0
        self.starter.in_a_row = 0
        self.idle.append(child)

    def died_waiting(self, child: Child, status: int) -> bool:
        """A child has died; whether it belonged to no program yet."""
        if child in self.idle:
            self.idle.remove(child)
            return True
        if child.pidfd >= 0:
            return False
        self.coming -= 1
        self._stillborn += 1
        if self._stillborn > _STILLBORN:
            raise SandboxError(f"children die before they can take a program, with wait status {status}")
        return True


class WarmSupply(Supply):
    """Of children that have numpy: of a second fork server, which takes nothing from the first as long as none is used.

    It is started when the first program that imports numpy has been judged, so that it does not take the core away from
    that one, and without waiting for it.  Until it is there, and where it cannot be, programs import numpy themselves.
    """

    hopeless = False  # there will be none
    is_ready = False

    def begin(self) -> bool:
        """Start the server unless it has been; True: its first word is to be awaited (`admit`)."""
        if self.server is not None or self.hopeless:
            return False
        self.starter.in_a_row += 1
        try:
            if self.starter.in_a_row > RESTARTS:
                raise SandboxError("it died again and again")
            self.server = self.starter.start()
        except (SandboxError, OSError) as problem:  # descriptors may be scarce
            self._give_up(problem)
        return self.server is not None

    def admit(self, level: str) -> bool:
        """Hear the server's first word; whether it isolates at the same level as the other one."""
        try:
            self.server.hello()
            if self.server.report["level"] != level:
                self.server.close()
                raise SandboxError(f"it isolates at the level {self.server.report['level']}")
        except SandboxError as problem:
            self.server = None
            self._give_up(problem)
            return False
        self.is_ready = True
        return True

    def forget(self) -> None:
        super().forget()
        self.is_ready = False

    def _give_up(self, problem: Exception) -> None:
        self.hopeless = True
        log.info("no fork server with numpy, so programs import it themselves: %s", problem)
