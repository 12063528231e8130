"""What test files use of pytest: raises, approx, fixtures, parametrize, skip.

Loaded under its name in the process of the tests: pytest itself would take a quarter of a second and 20 MB there.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal


class Skipped(BaseException):
    pass


class Failed(AssertionError):
    pass


def fail(reason: str = "", pytrace: bool = True, msg: str = "") -> None:
    raise Failed(reason or msg)


def skip(reason: str = "", allow_module_level: bool = False, msg: str = "") -> None:
    raise Skipped(reason or msg)


def importorskip(name: str, *_: object, **__: object) -> object:
    return __import__(name)


class ExceptionInfo:
    value: BaseException
    type: type

    def match(self, pattern: str) -> bool:
        assert re.search(pattern, str(self.value)), f"{pattern!r} does not match {str(self.value)!r}"
        return True


class _Raises:
    def __init__(self, expected: object, match: str | None) -> None:
        self._expected, self._match = expected, match

    def __enter__(self) -> ExceptionInfo:
        self._info = ExceptionInfo()
        return self._info

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            names = self._expected if isinstance(self._expected, tuple) else (self._expected,)
            raise Failed(f"DID NOT RAISE {' or '.join(getattr(n, '__name__', str(n)) for n in names)}")
        if not isinstance(error, self._expected):
            return False
        self._info.value, self._info.type = error, type(error)
        if self._match is not None:
            self._info.match(self._match)
        return True


def raises(expected: object, *call: object, match: str | None = None, **named: object):  # noqa: ANN201
    if not call:
        return _Raises(expected, match)
    with _Raises(expected, match) as info:
        call[0](*call[1:], **named)
    return info


class approx:  # noqa: N801 — its name
    __array_ufunc__ = None
    __array_priority__ = 100

    def __init__(self, expected: object, rel: float | None = None, abs: float | None = None, nan_ok: bool = False):  # noqa: A002
        self.expected, self._rel, self._abs, self._nan_ok = expected, rel, abs, nan_ok

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def __eq__(self, actual: object) -> bool:
        return self._equal(actual, self.expected)

    __hash__ = None

    def _equal(self, actual: object, expected: object) -> bool:
        if type(expected).__name__ == "ndarray":
            expected = expected.tolist()
        if type(actual).__name__ == "ndarray":
            actual = actual.tolist()
        if isinstance(expected, Mapping):
            return (
                isinstance(actual, Mapping)
                and actual.keys() == expected.keys()
                and all(self._equal(actual[key], value) for key, value in expected.items())
            )
        if isinstance(expected, Sequence) and not isinstance(expected, str | bytes):
            return (
                isinstance(actual, Sequence)
                and len(actual) == len(expected)
                and all(self._equal(a, e) for a, e in zip(actual, expected, strict=True))
            )
        if isinstance(expected, bool) or not isinstance(expected, int | float | complex | Decimal):
            return actual == expected
        if not isinstance(actual, int | float | complex | Decimal):
            return False
        return self._close(actual, expected)

    def _close(self, actual: complex, expected: complex) -> bool:
        if actual == expected:
            return True
        if actual != actual or expected != expected:
            return self._nan_ok and actual != actual and expected != expected
        if isinstance(expected, Decimal) != isinstance(actual, Decimal):
            actual, expected = float(actual), float(expected)
        size = abs(expected)
        if math.isinf(size):
            return False
        absolute = 1e-12 if self._abs is None else self._abs
        relative = (1e-6 if self._abs is None else 0.0) if self._rel is None else self._rel
        return abs(actual - expected) <= max(absolute, relative * float(size))


class _Marks:
    def __getattr__(self, name: str) -> Callable:
        def mark(*values: object, **named: object) -> object:
            if len(values) == 1 and not named and isinstance(values[0], types.FunctionType | type):
                return values[0]  # without parentheses
            return lambda function: _marked(function, name, values, named)

        return mark


def _marked(function: object, name: str, values: tuple, named: dict) -> object:
    if name == "parametrize":
        names = values[0] if values else named["argnames"]
        rows = values[1] if len(values) > 1 else named["argvalues"]
        names = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
        rows = [_row(row, len(names)) for row in rows]
        function._rows = [(names, rows), *getattr(function, "_rows", [])]
    elif name == "skipif" and values and values[0] is True:
        function._skipped = True
    elif name in ("skip", "xfail"):
        function._skipped = True
    return function


def _row(row: object, size: int) -> tuple:
    if isinstance(row, _Param):
        return row.values
    return tuple(row) if size > 1 else (row,)


class _Param:
    def __init__(self, values: tuple) -> None:
        self.values = values


def param(*values: object, **_: object) -> _Param:
    return _Param(values)


def fixture(function: Callable | None = None, **named: object) -> Callable:
    def mark(function: Callable) -> Callable:
        function._fixture = True
        function._params = list(named.get("params") or ())
        function._autouse = bool(named.get("autouse"))
        return function

    return mark if function is None else mark(function)


def main(*_: object, **__: object) -> int:
    return 0


mark = _Marks()


def module() -> types.ModuleType:
    """What `import pytest` finds."""
    found = types.ModuleType("pytest")
    for thing in (raises, approx, fixture, param, fail, skip, importorskip, main):
        setattr(found, thing.__name__, thing)
    found.mark = mark
    found.skip.Exception, found.fail.Exception = Skipped, Failed
    return found
