"""LiveCodeBench's comparison (lcb_runner/evaluation/testing_util.py, commit 28fef95), run outside of every child."""

from __future__ import annotations

import decimal
import json

_EXACT = decimal.Context(traps=[decimal.InvalidOperation])


def stdin_equal(printed: str, expected: str) -> bool:
    """Equal line by line after stripping: each as text, or as lists of exact decimal numbers (no tolerance)."""
    if printed.strip() == expected.strip():
        return True
    ours, theirs = _stripped_lines(printed), _stripped_lines(expected)
    return len(ours) == len(theirs) and all(a == b or _decimals_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def value_equal(value: object, expected: object) -> bool:
    """`==` after turning a top-level tuple into a list; `value` must be plain data (see `sandbox.values`)."""
    if isinstance(value, tuple):
        value = list(value)
    try:
        return bool(value == expected)
    except (RecursionError, ArithmeticError):
        return False


def parse_expected(text: str) -> object:
    """The expected value of a functional test; integers of any length."""
    return json.loads(text, parse_int=_parse_int)


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _decimals_equal(ours: str, theirs: str) -> bool:
    left, right = ours.split(), theirs.split()
    if len(left) != len(right):
        return False
    try:
        numbers = [(decimal.Decimal(a, _EXACT), decimal.Decimal(b, _EXACT)) for a, b in zip(left, right, strict=True)]
        return all(a == b for a, b in numbers)
    except (decimal.InvalidOperation, ValueError):  # not a number; or a signalling NaN, which refuses comparison
        return False


def _parse_int(text: str) -> int:
    if len(text) < 4000:
        return int(text)
    return int(decimal.Decimal(text, _EXACT))  # not subject to the interpreter's limit on digits
