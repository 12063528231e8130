"""Stand-ins, in the process of the tests, for objects that stay with the program.

What could decide an assertion is asked of an object only if the tests made it, by calling a class of the program.  An
object that came as an answer is equal to no plain data, has no order and no arithmetic with it, contains what iterating
over it yields, and answers no `startswith` or `issubset`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .candidate import OPERATORS
from .objects import VERDICTS
from .values import CUT, TooLarge

if TYPE_CHECKING:
    from .remote import Remote

TEXT = 2000  # characters of a call or value that is shown


class StandIn:
    """Of an object that stays with the program."""

    def __init__(self, remote: Remote, number: int, name: str, made: bool = False) -> None:
        """made: by the tests, which called a class of the program."""
        vars(self).update(_sandbox_remote=remote, _sandbox_number=number, _sandbox_name=name, _sandbox_made=made)

    def __getattr__(self, name: str) -> object:
        if name in VERDICTS and not self._sandbox_made:
            raise AttributeError(f"{self._sandbox_name!r} object has no attribute {name!r} that a test may rely on")
        if name.startswith("__array_") and name != "__array__":  # numpy would read memory at an address from there
            raise AttributeError(name)
        value = self._sandbox_remote.attribute(self, name)
        if isinstance(value, RemoteFunction):
            object.__setattr__(value, "_sandbox_name", f"{self._sandbox_name}.{name}")
        return value

    def __setattr__(self, name: str, value: object) -> None:
        self._sandbox_remote.operator("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._sandbox_remote.operator("delattr", self, name)

    def __call__(self, *values: object, **named: object) -> object:
        return self._sandbox_remote.call(self, self._sandbox_name, values, named)

    def __repr__(self) -> str:
        return show(self._sandbox_remote.operator("repr", self), str)

    def __str__(self) -> str:
        return _checked(self._sandbox_remote.operator("str", self), str)

    def __format__(self, specification: str) -> str:
        return _checked(self._sandbox_remote.operator("format", self, specification), str)

    def __hash__(self) -> int:
        found = self._sandbox_remote.operator("hash", self)
        return found if type(found) is int else self._sandbox_number

    def __bool__(self) -> bool:
        return self._sandbox_remote.operator("bool", self) is True

    def __dir__(self) -> list:
        return self._sandbox_remote.operator("dir", self)

    def __eq__(self, other: object) -> bool:
        if same(self, other):
            return True
        if not (isinstance(other, StandIn) or self._sandbox_made):
            return False
        return self._sandbox_remote.operator("eq", self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, item: object) -> bool:
        if self._sandbox_made or isinstance(item, StandIn):
            return self._sandbox_remote.operator("contains", self, item) is True
        return any(item is found or item == found for found in self)

    def __iter__(self) -> Iterator:
        found = self._sandbox_remote.operator("iter", self)
        return found if isinstance(found, StandIn) else iter(found)

    def __reversed__(self) -> Iterator:
        return iter(self._sandbox_remote.operator("reversed", self))

    def __next__(self) -> object:
        return self._sandbox_remote.operator("next", self)

    def __len__(self) -> int:
        return _checked(self._sandbox_remote.operator("len", self), int)

    def __getitem__(self, key: object) -> object:
        return self._sandbox_remote.operator("getitem", self, key)

    def __setitem__(self, key: object, value: object) -> None:
        self._sandbox_remote.operator("setitem", self, key, value)

    def __delitem__(self, key: object) -> None:
        self._sandbox_remote.operator("delitem", self, key)

    def __enter__(self) -> object:
        return self._sandbox_remote.attribute(self, "__enter__")()

    def __exit__(self, *details: object) -> object:
        told = (None, None) if details[0] is None else details[:2]  # no traceback: it shows the tests
        handled: object = True  # by an exception of its own, too
        try:
            handled = self._sandbox_remote.attribute(self, "__exit__")(*told, None)
        finally:
            if handled:
                self._sandbox_remote.swallowed(details[1])
        return handled

    def __copy__(self) -> object:
        return self._sandbox_remote.operator("copy", self)

    def __deepcopy__(self, memo: dict) -> object:
        return self._sandbox_remote.operator("deepcopy", self)

    def __round__(self, *digits: int) -> object:
        return self._sandbox_remote.operator("round", self, *digits)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, StandIn) and self._sandbox_remote.operator("isinstance", instance, self) is True

    def __subclasscheck__(self, kind: object) -> bool:
        return isinstance(kind, StandIn) and self._sandbox_remote.operator("issubclass", kind, self) is True


def same(one: object, other: object) -> bool:
    """`is`, for which stand-ins are what they stand for."""
    if isinstance(one, StandIn) and isinstance(other, StandIn):
        return one._sandbox_number == other._sandbox_number
    return one is other


def _checked(value: object, kind: type) -> object:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, the program gave {type(value).__name__}")
    return value


def _unary(name: str) -> Callable:
    return lambda self: self._sandbox_remote.operator(name, self)


def _number(name: str, kind: type) -> Callable:
    return lambda self: _checked(self._sandbox_remote.operator(name, self), kind)


def _binary(name: str, swapped: bool = False) -> Callable:
    def apply(self: StandIn, other: object) -> object:
        if not (self._sandbox_made or isinstance(other, StandIn)):
            return NotImplemented
        return self._sandbox_remote.operator(name, *((other, self) if swapped else (self, other)))

    return apply


def _in_place(name: str) -> Callable:
    def apply(self: StandIn, other: object) -> object:
        result = _binary(name)(self, other)
        return self if same(self, result) else result

    return apply


def _order(name: str) -> Callable:
    def apply(self: StandIn, other: object) -> object:
        if not (self._sandbox_made or isinstance(other, StandIn)):
            return NotImplemented
        return self._sandbox_remote.operator(name, self, other) is True

    return apply


for _special in ("abs", "neg", "pos", "invert"):
    setattr(StandIn, f"__{_special}__", _unary(_special))
for _special, _type in (("int", int), ("float", float), ("complex", complex), ("bytes", bytes), ("index", int)):
    setattr(StandIn, f"__{_special}__", _number(_special, _type))
for _special in ("lt", "le", "gt", "ge"):
    setattr(StandIn, f"__{_special}__", _order(_special))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "divmod", "matmul", "and_", "or_", "xor",
              "lshift", "rshift"):  # fmt: skip
    _special = _name.rstrip("_")
    setattr(StandIn, f"__{_special}__", _binary(_name))
    setattr(StandIn, f"__r{_special}__", _binary(_name, swapped=True))
    if f"i{_special}" in OPERATORS:
        setattr(StandIn, f"__i{_special}__", _in_place(f"i{_special}"))


class RemoteFunction(StandIn):
    @property
    def __name__(self) -> str:
        return self._sandbox_name.rpartition(".")[2]


class RemoteClass(StandIn):
    """Calling it makes an object of the tests' own, which may answer for itself if the tests know it as a class."""

    _sandbox_tested = False

    @property
    def __name__(self) -> str:
        return self._sandbox_name

    def __call__(self, *values: object, **named: object) -> object:
        value = self._sandbox_remote.call(self, self._sandbox_name, values, named)
        return self._sandbox_remote.made(value) if self._sandbox_tested else value

    def __mro_entries__(self, bases: tuple) -> tuple:
        return self._sandbox_remote.derived_from(self._sandbox_name)

    def __repr__(self) -> str:
        return f"<class {self._sandbox_name}>"


class RemoteHolder(StandIn):
    """Of a class that derives from a container, or a member of an enumeration: what it holds is compared here."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StandIn):
            return StandIn.__eq__(self, other)
        try:
            return self._sandbox_remote.data(self) == other
        except TypeError:
            return False

    __hash__ = StandIn.__hash__


def _of_what_it_holds(name: str) -> Callable:
    """With data, Python's own operator on the data that the object holds."""
    ours = getattr(StandIn, name)

    def apply(self: RemoteHolder, other: object) -> object:
        if self._sandbox_made or isinstance(other, StandIn):
            return ours(self, other)
        held = self._sandbox_remote.data(self)
        return getattr(type(held), name, lambda *_: NotImplemented)(held, other)

    return apply


for _special in ("lt", "le", "gt", "ge", "add", "radd", "sub", "rsub", "mul", "rmul", "and", "or", "xor"):
    setattr(RemoteHolder, f"__{_special}__", _of_what_it_holds(f"__{_special}__"))


KINDS: dict[str, type[StandIn]] = {
    "function": RemoteFunction,
    "class": RemoteClass,
    "object": StandIn,
    "holder": RemoteHolder,
}


def type_of(*arguments: object) -> object:
    """`type`, for which a stand-in is what it stands for."""
    if len(arguments) == 1 and isinstance(arguments[0], StandIn):
        return arguments[0]._sandbox_remote.operator("type", arguments[0])
    return type(*arguments)


def show(value: object, write: Callable[[object], str] = repr) -> str:
    """A value as Python writes it, at most `TEXT` characters; whatever goes wrong, a text."""
    try:
        text = write(value)
    except (TooLarge, Exception) as error:
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return cut(text if type(text) is str else "<no text>")


def cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - len(CUT)] + CUT
