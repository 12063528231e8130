"""Lone surrogates, which Python's texts may hold and UTF-8 may not: the one place that deals with them.

They come from data (half of an emoji in JSON, "\\ud83d") and from programs.  U+DC80 to U+DCFF stand for a byte that is
not UTF-8 (`surrogateescape`); all others become U+FFFD, as they do in browsers (WHATWG Encoding).
"""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def to_bytes(text: str) -> bytes:
    """UTF-8, for what a program reads; bytes that were not UTF-8 are themselves again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _NO_BYTE.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def from_bytes(data: bytes) -> str:
    """What a program printed, as text without surrogates."""
    return data.decode("utf-8", "replace")


def as_printed(text: str) -> str:
    """What `from_bytes` makes of a program that prints exactly `text`."""
    return from_bytes(to_bytes(text)) if _LONE.search(text) else text


def clean(text: str) -> str:
    """`text` that every encoder takes."""
    return text if text.isascii() else _LONE.sub("\ufffd", text)
