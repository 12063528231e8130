"""LiveCodeBench's comparison (lcb_runner/evaluation/testing_util.py, commit 28fef95), run outside of every child."""

from __future__ import annotations

import decimal
import json

_EXACT = decimal.Context(traps=[decimal.InvalidOperation])


def stdin_equal(printed: str, expected: str) -> bool:
    """Equal line by line after stripping: each as text, or as lists of exact decimal numbers (no tolerance).

    The work is bounded by the length of the two texts: lines and tokens are counted before they are made.
    """
    ours, theirs = printed.strip(), expected.strip()
    if ours == theirs:
        return True
    if ours.count("\n") != theirs.count("\n"):
        return False
    pairs = zip(ours.split("\n"), theirs.split("\n"), strict=True)
    return all(a == b or _decimals_equal(a, b) for a, b in ((a.strip(), b.strip()) for a, b in pairs))


def returned_equal(encoded: object, expected: object) -> bool:
    """`==` of a returned value, encoded as `sandbox.values` does, and a JSON value; a top-level tuple counts as a list.

    Nothing is built from what the program returned: no fraction (comparing takes a product, hashing a modular power),
    no dictionary (its keys may all collide).  The expected value leads, and its own dictionaries are searched.
    """
    try:
        if _is(encoded, "tuple"):
            encoded = encoded["tuple"]
        return _equal(encoded, expected)
    except (RecursionError, ArithmeticError, ValueError, TypeError):  # also of forged tags
        return False


def _is(encoded: object, tag: str) -> bool:
    return type(encoded) is dict and encoded.keys() == {tag}


def _equal(ours: object, theirs: object) -> bool:
    if type(theirs) is list:
        if type(ours) is not list or len(ours) != len(theirs):
            return False
        if _SCALARS.issuperset(map(type, ours)) and _SCALARS.issuperset(map(type, theirs)):
            return ours == theirs
        return all(map(_equal, ours, theirs))
    if type(theirs) is dict:
        return _is(ours, "dict") and _same_items(ours["dict"], theirs)
    if type(ours) is dict:
        ((tag, content),) = ours.items()
        return type(theirs) in (int, float, bool) and _NUMBERS[tag](content, theirs) if tag in _NUMBERS else False
    return type(ours) is not list and ours == theirs


def _same_items(pairs: list, theirs: dict) -> bool:
    if len(pairs) != len(theirs):
        return False
    seen = set()  # of keys that are in `theirs`
    for key, value in pairs:
        if type(key) is not str or key not in theirs or key in seen or not _equal(value, theirs[key]):
            return False
        seen.add(key)
    return True


def _fraction_equal(parts: list, number: int | float) -> bool:
    ours = tuple(int(part, 16) for part in parts)  # in lowest terms, as Python keeps them
    return ours == number.as_integer_ratio()  # of infinity and NaN: an ArithmeticError, a ValueError


def _complex_equal(parts: list, number: int | float) -> bool:
    real, imaginary = parts
    return type(real) is type(imaginary) is float and complex(real, imaginary) == number


_SCALARS = frozenset((type(None), bool, int, float, str))
_NUMBERS = {
    "int": lambda digits, number: int(digits, 16) == number,
    "Fraction": _fraction_equal,
    "complex": _complex_equal,
    "Decimal": lambda text, number: type(text) is str and decimal.Decimal(text, _EXACT) == number,
}


def parse_expected(text: str) -> object:
    """The expected value of a functional test; integers of any length."""
    return json.loads(text, parse_int=_parse_int)


def _decimals_equal(ours: str, theirs: str) -> bool:
    right = theirs.split()
    left = ours.split(None, len(right))  # one more than there should be is enough to know
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
