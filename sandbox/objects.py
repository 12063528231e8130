"""Python values on their way between a program and the tests that call it: JSON with tags, types kept exactly.

Plain data travel by value.  Everything else stays where it is and travels as a reference, which `refer` of the one side
makes and `resolve` of the other understands (`sandbox.candidate`, `sandbox.remote`).
"""

from __future__ import annotations

import builtins
import collections
import datetime
import json
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from fractions import Fraction

from .values import _BIG, MAX_DEPTH, MAX_SHOWN, TooLarge, _deeper

_PLAIN = frozenset((type(None), bool, float, str))
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_VIEWS = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}
_DATES = {"datetime": datetime.datetime, "date": datetime.date, "time": datetime.time}
_WRITTEN = {  # equal to what their class makes of their text
    "UUID": "uuid", "PosixPath": "pathlib", "PurePosixPath": "pathlib", "IPv4Address": "ipaddress",
    "IPv6Address": "ipaddress", "IPv4Network": "ipaddress", "IPv6Network": "ipaddress",
}  # fmt: skip
_FACTORIES = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
TYPES = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and kind.__module__ == "builtins" and kind.__name__ == name
}
TYPES |= {kind.__name__: kind for kind in (type(None), types.FunctionType, types.GeneratorType, types.MethodType)}
VERDICTS = frozenset(("startswith", "endswith", "issubset", "issuperset", "isdisjoint"))  # of text and sets
_ARRAYS = frozenset("?bBhHiIlLqQefdFD")  # of numbers, as numpy calls those for which Python has one, too
_ITEMS_SHOWN = 100  # of each container, so that the work is bounded by the text that is left
_MAX_EXPONENT = 10_000  # of a Decimal: comparing one with an integer writes its digits out

Refer = Callable[[object], object]
Resolve = Callable[[str, object], object]


class Encoder:
    """refer: what stands for an object that is not plain data, as JSON."""

    def __init__(self, refer: Refer, most: int) -> None:
        self._refer, self._most, self._left = refer, most, most

    def text(self, message: object) -> str:
        """JSON of a message that is JSON already.  Raises TooLarge."""
        text = json.dumps(message)
        if len(text) > self._most:
            raise TooLarge(f"a value takes {len(text):,} characters, the output limit allows {self._most:,}")
        return text

    def encode(self, value: object, depth: int = 0) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else {"int": hex(value)}
        if kind is list:
            return self._items(value, depth)
        if kind is tuple or kind is set or kind is frozenset:
            return {kind.__name__: self._items(value, depth)}
        if kind is dict:
            return {"dict": self._pairs(value, depth)}
        return self._rarer(value, kind, depth)

    def _rarer(self, value: object, kind: type, depth: int) -> object:
        if kind is bytes or kind is bytearray:
            self._spend(len(value))
            return {kind.__name__: value.hex()}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is Fraction:
            return {"Fraction": [hex(value.numerator), hex(value.denominator)]}
        if kind is Decimal:
            return {"Decimal": str(value)}
        if kind is range or kind is slice:
            return {kind.__name__: self._items([value.start, value.stop, value.step], depth)}
        if kind in (collections.Counter, collections.OrderedDict):
            return {kind.__name__: self._pairs(value, depth)}
        if kind is collections.defaultdict:
            names = [name for name, factory in _FACTORIES.items() if factory is value.default_factory]
            return {"defaultdict": [*names, None][:1] + [self._pairs(value, depth)]}
        if kind is collections.deque:
            return {"deque": [self._items(value, depth), value.maxlen]}
        for name, date in _DATES.items():
            if kind is date:
                return {name: value.isoformat()}
        if kind is datetime.timedelta:
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        if value is Ellipsis or value is NotImplemented:
            return {"constant": repr(value)}
        for name, view in _VIEWS.items():
            if kind is view:
                return {name: self._items(list(value), depth)}
        module = _WRITTEN.get(kind.__name__)
        if module is not None and getattr(sys.modules.get(module), kind.__name__, None) is kind:
            return {kind.__name__: str(value)}
        if kind is type(type) and TYPES.get(value.__name__) is value:
            return {"type": value.__name__}
        return self._subclass(value, kind, depth)

    def _subclass(self, value: object, kind: type, depth: int) -> object:
        """Subclasses of numbers and texts count as the data they hold; nothing of theirs is called for it."""
        if issubclass(kind, tuple) and type(fields := getattr(kind, "_fields", None)) is tuple and self.by_value(kind):
            names = [str(field) for field in fields]
            return {"named": [kind.__name__, names, self._items(list(tuple.__iter__(value)), depth)]}
        if not issubclass(kind, Enum):
            if issubclass(kind, str):
                return str.__str__(value)
            if issubclass(kind, int):
                return self.encode(int.__add__(value, 0), depth)
            if issubclass(kind, float):
                return float.__add__(value, 0.0)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic):
            item = numpy.generic.item(value)
            if type(item) is not kind:
                return self.encode(item, depth)
        if numpy is not None and kind is numpy.ndarray and value.dtype.char in _ARRAYS:
            self._spend(value.size)
            return {"array": [value.dtype.str, list(value.shape), self.encode(value.ravel().tolist(), depth + 1)]}
        return self._refer(value)

    def by_value(self, kind: type) -> bool:
        """Whether objects of a class of named tuples are nothing but their fields."""
        return True

    def _pairs(self, value: dict, depth: int) -> list:
        keys, items = self._items(list(value), depth), self._items(list(value.values()), depth)
        return [list(pair) for pair in zip(keys, items, strict=True)]

    def _items(self, items, depth: int) -> list:  # noqa: ANN001
        if depth >= MAX_DEPTH:
            raise TooLarge(f"a value is nested more than {MAX_DEPTH} deep")
        self._spend(len(items))
        return [self.encode(item, depth + 1) for item in items]

    def _spend(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise TooLarge(f"a value has more items than {self._most:,} characters, the output limit, hold")


def parse(text: bytes) -> list:
    """A message as JSON.  Raises ValueError for what no `Encoder` writes, before the parser can exhaust the stack."""
    decoded = text.decode("ascii")
    if decoded.count("[") + decoded.count("{") > 2 * MAX_DEPTH and _deeper(decoded, 2 * MAX_DEPTH + 20):
        raise ValueError("nested too deeply")
    message = json.loads(decoded)
    if type(message) is not list or not message:
        raise ValueError("not a message")
    return message


def decode(encoded: object, resolve: Resolve) -> object:
    """The value again.  Raises ValueError, TypeError or the like for what no `Encoder` writes."""
    kind = type(encoded)
    if kind is list:
        return [decode(item, resolve) for item in encoded]
    if kind is not dict:
        return encoded
    ((tag, content),) = encoded.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](decode(item, resolve) for item in content)
    if tag == "dict":
        return {decode(key, resolve): decode(value, resolve) for key, value in content}
    if tag in _DECODERS:
        return _DECODERS[tag](content, lambda value: decode(value, resolve))
    return resolve(tag, content)


def show(encoded: object) -> str:
    """About what Python would write, of a value that a program may have chosen: nothing is built of it."""
    kind = type(encoded)
    if kind is list:
        return f"[{_shown(encoded)}]"
    if kind is not dict:
        return repr(encoded[:MAX_SHOWN] if kind is str else encoded)
    ((tag, content),) = encoded.items()
    if tag == "tuple":
        return f"({_shown(content)}{',' * (len(content) == 1)})"
    if tag in ("dict", "Counter", "OrderedDict"):
        pairs = (f"{show(key)}: {show(value)}" for key, value in content[:_ITEMS_SHOWN])
        return f"{{{', '.join(pairs)}{', ...' * (len(content) > _ITEMS_SHOWN)}}}"
    if tag == "set":
        return f"{{{_shown(content)}}}" if content else "set()"
    return f"{tag}(...)" if tag in _SEQUENCES or tag in _DECODERS else "<object>"


def _shown(items: list) -> str:
    return ", ".join([show(item) for item in items[:_ITEMS_SHOWN]] + ["..."] * (len(items) > _ITEMS_SHOWN))


def _mapping(content: list, inner: Callable[[object], object]) -> dict:
    return {inner(key): inner(value) for key, value in content}


def _counter(content: list, inner: Callable[[object], object]) -> collections.Counter:
    return collections.Counter(_mapping(content, inner))


def _named(content: list, inner: Callable[[object], object]) -> tuple:
    name, fields, items = content
    fields = ["_" if field in VERDICTS else field for field in fields]  # they could hold functions of the program
    kind = collections.namedtuple(name if name.isidentifier() else "Record", fields, rename=True)  # noqa: PYI024
    return kind(*map(inner, items))


def _array(content: list, inner: Callable[[object], object]) -> object:
    import numpy

    kind, shape, items = content
    if numpy.dtype(kind).char not in _ARRAYS:
        raise ValueError("an array of this kind")
    return numpy.array(inner(items), dtype=kind).reshape(shape)


def _decimal(text: str, inner: Callable[[object], object]) -> Decimal:
    value = Decimal(text)
    if value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT:
        raise ValueError("an exponent too large")
    return value


def _written(name: str) -> Callable:
    return lambda text, inner: getattr(__import__(_WRITTEN[name]), name)(text)


_DECODERS: dict[str, Callable] = {
    "int": lambda c, inner: int(c, 16),
    "bytes": lambda c, inner: bytes.fromhex(c),
    "bytearray": lambda c, inner: bytearray.fromhex(c),
    "complex": lambda c, inner: complex(*c),
    "Fraction": lambda c, inner: Fraction(int(c[0], 16), int(c[1], 16)),
    "Decimal": _decimal,
    "range": lambda c, inner: range(*map(inner, c)),
    "slice": lambda c, inner: slice(*map(inner, c)),
    "Counter": _counter,
    "OrderedDict": lambda c, inner: collections.OrderedDict(_mapping(c, inner)),
    "defaultdict": lambda c, inner: collections.defaultdict(_FACTORIES.get(c[0]), _mapping(c[1], inner)),
    "deque": lambda c, inner: collections.deque(map(inner, c[0]), c[1]),
    "timedelta": lambda c, inner: datetime.timedelta(*c),
    "constant": lambda c, inner: Ellipsis if c == "Ellipsis" else NotImplemented,
    "keys": lambda c, inner: dict.fromkeys(map(inner, c)).keys(),
    "values": lambda c, inner: dict(enumerate(map(inner, c))).values(),
    "items": lambda c, inner: dict(map(inner, c)).items(),
    "type": lambda c, inner: TYPES[c],
    "named": _named,
    "array": _array,
    **{name: _written(name) for name in _WRITTEN},
    **{name: lambda c, inner, kind=kind: kind.fromisoformat(c) for name, kind in _DATES.items()},
}


def update(old: object, new: object) -> bool:
    """Give the container `old` the content of `new`, keeping the containers inside of it where they are.

    False: the two are not of one kind, so that nothing can be updated in place.
    """
    kind = type(old)
    if kind is not type(new):
        return False
    if kind is list:
        old[:] = [_merged(before, after) for before, after in zip(old, new, strict=False)] + new[len(old) :]
    elif isinstance(old, dict):
        merged = {key: _merged(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif kind is set:
        old.clear()
        old |= new
    elif kind is bytearray:
        old[:] = new
    elif kind is collections.deque:
        old.clear()
        old.extend(new)
    elif kind is tuple and len(old) == len(new):
        for before, after in zip(old, new, strict=True):
            update(before, after)
    elif kind.__name__ == "ndarray" and old.shape == new.shape:
        old[...] = new
    else:
        return False
    return True


def _merged(old: object, new: object) -> object:
    return old if update(old, new) else new
