"""Messages between driver, server and workers: a length of 4 bytes, then that many bytes.

Calls go out as pickles of their arguments, which the driver made itself; everything that comes back is JSON.
"""

from __future__ import annotations

import json
import struct
from socket import socket
from typing import Any

LENGTH = struct.Struct(">I")
MAX_REPLY = 2**20  # bytes of one
MAX_CONTROL = 2**16  # bytes of a message between driver and server, which is one packet
MAX_OUTPUT = 2**20  # characters that a call may print; bytes below Python's own streams
MAX_TEXT = 4000  # characters of a traceback, of a message, of what a call printed


class Nonsense(ValueError):
    """What a function returned is not what it should return; the message says why."""


def pack(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def read(channel: socket) -> bytes | None:
    """The next message; None where the other side is gone.  Blocks."""
    head = _exactly(channel, LENGTH.size)
    return None if head is None else _exactly(channel, LENGTH.unpack(head)[0])


def _exactly(channel: socket, size: int) -> bytes | None:
    parts, left = [], size
    while left:
        try:
            part = channel.recv(min(left, 2**20))
        except ConnectionError:
            part = b""
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def encode(value: Any) -> bytes:
    """JSON without NaN.  Raises Nonsense for what is none, or is too large."""
    try:
        text = json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Nonsense(f"it returned what JSON cannot hold ({error})") from None
    if len(text) > MAX_REPLY:
        raise Nonsense(f"it returned {len(text):,} bytes; {MAX_REPLY:,} are accepted")
    return text


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """The beginning and, of a longer one, the end: a traceback ends with what went wrong."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n…\n{text[-limit // 2 :]}"
