"""Returned values on their way out of a child: JSON with tags, so that 1, 1.0, True, (1,), [1] and {1: 2} stay apart.

`encode` runs in the child, all else outside.  `decode` yields JSON as it came, tags and all: no Fraction is made of
what a child sends, and no dictionary with keys of its choice.  `sandbox.compare` works on that form.
"""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from fractions import Fraction

MAX_DEPTH = 450  # of lists, tuples and dictionaries in each other; a tag takes a level of its own
MAX_SHOWN = 20_000  # characters
CUT = "... (truncated)"
_PLAIN = (type(None), bool, float, str)
_BIG = 10**4000  # beyond this, decimal conversion is quadratic and limited by the interpreter
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_PIECE = 512


class TooLarge(ValueError):
    """Plain data, but more of it, or nested more deeply, than is compared."""


def encode(value: object, most: int) -> str:
    """JSON text of at most `most` characters.  Raises TooLarge."""
    text = json.dumps(_Encoder(most).encode(value, 0))
    if len(text) > most:
        raise TooLarge(f"the returned value takes {len(text):,} characters, the output limit allows {most:,}")
    return text


class _Encoder:
    def __init__(self, most: int) -> None:
        self._most = self._left = most  # items, each of which takes at least one character

    def encode(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else {"int": hex(value)}
        if kind is list:
            return self._items(value, depth)
        # Subclasses count as the data they hold; nothing of the program's own is called to find out what that is.
        if isinstance(value, tuple):
            return {"tuple": self._items(tuple.__iter__(value), depth, tuple.__len__(value))}
        if isinstance(value, dict):
            size = dict.__len__(value)
            keys, values = self._items(dict.keys(value), depth, size), self._items(dict.values(value), depth, size)
            return {"dict": list(zip(keys, values, strict=True))}
        if isinstance(value, list):
            return self._items(list.__iter__(value), depth, list.__len__(value))
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return self.encode(int.__add__(value, 0), depth)
        if isinstance(value, float):
            return float.__add__(value, 0.0)
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is Fraction:
            return {"Fraction": [hex(value.numerator), hex(value.denominator)]}
        if kind is Decimal:
            return {"Decimal": str(value)}
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic):
            item = numpy.generic.item(value)
            if type(item) is not kind:  # a long double, which Python has no number for
                return self.encode(item, depth)
        return {"other": _safe_repr(value)}

    def _items(self, items, depth: int, size: int | None = None) -> list:  # noqa: ANN001
        if depth >= MAX_DEPTH:
            raise TooLarge(f"the returned value is nested more than {MAX_DEPTH} deep")
        self._left -= len(items) if size is None else size
        if self._left < 0:
            raise TooLarge(f"the returned value has more items than {self._most:,} characters, the output limit, hold")
        return [self.encode(item, depth + 1) for item in items]


def _safe_repr(value: object) -> str:
    try:
        return repr(value)[:2000]
    except BaseException:
        return object.__repr__(value)


def decode(data: bytes, most_items: int) -> object:
    """The JSON that `encode` wrote.  Raises TooLarge for more than `most_items`, ValueError for anything else."""
    if data.count(b",") > most_items:
        raise TooLarge("more items than the expected value can have")
    text = data.decode("ascii")
    if text.count("[") + text.count("{") > 2 * MAX_DEPTH and _deeper(text, 2 * MAX_DEPTH + 2):
        raise ValueError("nested too deeply")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"not an encoded value: {error}") from None


def _deeper(text: str, most: int) -> bool:
    """Whether brackets are nested more than `most` deep, give or take a piece; the parser must not find out by itself:
    where somebody has raised the recursion limit, that ends the process."""
    brackets = _STRING.sub("", text)
    depth = 0
    for begin in range(0, len(brackets), _PIECE):
        piece = brackets[begin : begin + _PIECE]
        opened = piece.count("[") + piece.count("{")
        if depth + opened > most + _PIECE:
            return True
        depth += opened - piece.count("]") - piece.count("}")
    return False


def is_plain(encoded: object) -> bool:
    """False for an object of the program's own, which is equal to nothing."""
    return not (type(encoded) is dict and encoded.keys() == {"other"})


def show(encoded: object) -> str:
    """The value as Python writes it, cut after `MAX_SHOWN` characters; the work is bounded by that, too."""
    pieces: list[str] = []
    try:
        _write(encoded, pieces, MAX_SHOWN)
    except (TypeError, ValueError, KeyError, ArithmeticError, RecursionError):
        return "<forged>"  # no text that `encode` writes
    text = "".join(pieces)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - len(CUT)] + CUT


def _write(encoded: object, pieces: list[str], left: int) -> int:
    """Append to `pieces`; returns how many of `left` characters are left then."""

    def put(text: str) -> None:
        nonlocal left
        pieces.append(text)
        left -= len(text)

    def series(items: list, opening: str, closing: str) -> None:
        nonlocal left
        put(opening)
        for number, item in enumerate(items):
            if left < 0:
                return
            if number:
                put(", ")
            left = _write(item, pieces, left)
        put(closing)

    if type(encoded) is list:
        series(encoded, "[", "]")
    elif type(encoded) is not dict:
        put(repr(encoded[: MAX_SHOWN + 1] if type(encoded) is str else encoded))
    else:
        ((tag, content),) = encoded.items()
        if tag == "tuple":
            series(content, "(", ",)" if len(content) == 1 else ")")
        elif tag == "dict":
            put("{")
            for number, (key, value) in enumerate(content):
                if left < 0:
                    break
                put(", " if number else "")
                left = _write(key, pieces, left)
                put(": ")
                left = _write(value, pieces, left)
            put("}")
        elif tag == "int":
            put("<int, too large to show>")
        elif tag == "complex":
            put(repr(complex(*content)))
        elif tag == "Fraction":
            numbers = [str(int(part, 16)) if len(part) < 500 else "…" for part in content]
            put(f"Fraction({', '.join(numbers)})")
        elif tag == "Decimal":
            put(f"Decimal({content[: MAX_SHOWN + 1]!r})")
        else:
            put(str(content)[: MAX_SHOWN + 1])
    return left
