"""One side of the conversation between a program and its tests, each in a process of its own.

The judge carries the messages.  Whoever was asked may ask back before it answers: a function of the tests that the
program calls, say.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from . import wire
from .objects import parse


class Dialogue:
    def __init__(self, connection: socket.socket, buffer: bytearray, send: Callable[[wire.Report], None]) -> None:
        """buffer: what has been read of the connection already.  send: puts a report where the judge finds it."""
        self._connection, self._buffer, self._send = connection, buffer, send

    def receive(self) -> list:
        """The next message of the other side.  Raises EOFError when there is none any more."""
        return parse(wire.receive_message(self._connection, self._buffer))

    def send(self, text: str) -> None:
        self._send(wire.Report(wire.RELAY, b"", value=text.encode()))
