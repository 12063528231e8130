"""The program's side of an assertion test: run its module, then answer what the tests ask of it.

The tests run in another process (`sandbox.examiner`).  What arrives here is a name to look up, a function to call with
these arguments, an operator to apply: nothing of the tests' text, and no value that they expect.
"""

from __future__ import annotations

import collections
import copy
import operator
import os
import sys
import types
from enum import Enum

from . import failure
from .dialogue import Dialogue
from .objects import TYPES, Encoder, decode
from .runner import Program, reset_limits

# References of our own: a program may put others in their places.
_BY_ONE = {
    "abs": abs, "bool": bool, "bytes": bytes, "complex": complex, "dir": dir, "float": float, "hash": hash,
    "index": operator.index, "int": int, "invert": operator.invert, "iter": iter, "len": len, "neg": operator.neg,
    "next": next, "pos": operator.pos, "repr": repr, "reversed": reversed, "str": str, "type": type,
    "callable": callable, "copy": copy.copy, "deepcopy": copy.deepcopy,
}  # fmt: skip
_BY_MORE = {
    "contains": operator.contains, "delitem": operator.delitem, "getitem": operator.getitem, "round": round,
    "setitem": operator.setitem, "isinstance": isinstance, "issubclass": issubclass, "divmod": divmod, "pow": pow,
    "format": format, "getattr": getattr, "setattr": setattr, "delattr": delattr,
    **{name: getattr(operator, name) for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "and_", "or_", "xor", "lshift", "rshift", "matmul", "eq",
        "lt", "le", "gt", "ge", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "iand", "ior", "ixor",
        "ilshift", "irshift", "imatmul", "ipow",
    )},
}  # fmt: skip
OPERATORS = {**_BY_ONE, **_BY_MORE}
_CONTAINERS = (list, dict, set, bytearray, collections.deque, tuple)
_DATA = {kind: kind.__iter__ for kind in (list, tuple, set, frozenset)}
_isinstance, _issubclass, _type, _iter, _id = isinstance, issubclass, type, iter, id


class _Encoder(Encoder):
    def by_value(self, kind: type) -> bool:
        """Named tuples with methods or properties of their own stay here."""
        fields = kind._fields
        own = (name for base in kind.__mro__ if base is not tuple and base is not object for name in vars(base))
        return all(name[:1] == "_" or name in fields for name in own)


def serve(program: Program, dialogue: Dialogue, most: int) -> None:
    """Answer until the judge hangs up.  The module has run."""
    _Candidate(program, dialogue, most).serve()


class _Candidate:
    def __init__(self, program: Program, dialogue: Dialogue, most: int) -> None:
        self._program, self._dialogue, self._most = program, dialogue, most
        self._objects: list[object] = []  # by the number that the tests know
        self._numbers: dict[int, int] = {}  # id → number
        self._telling: set[int] = set()  # numbers of exceptions, which may hold themselves
        self._theirs: dict[tuple[str, int], object] = {}  # stand-ins for objects of the tests
        self._their_numbers: dict[int, tuple[str, int]] = {}  # id of a stand-in → what it stands for

    def serve(self) -> None:
        while True:
            self._dialogue.send(self._handled(self._dialogue.receive()))

    def _handled(self, message: list) -> str:
        try:
            return self._answer(message)
        except BaseException as error:
            reset_limits()
            return self._raised(error, [])

    def _answer(self, message: list) -> str:
        request, *content = message
        encoder = _Encoder(self._refer, self._most)
        if request == "call":
            return self._call(encoder, *content)
        if request == "get":
            value = self._program.namespace[content[0]]
        elif request == "names":
            value = list(self._program.namespace)
        elif request == "attribute":
            value = getattr(decode(content[0], self._resolve), content[1])
        elif request == "operator":
            value = OPERATORS[content[0]](*(decode(operand, self._resolve) for operand in content[1]))
        elif request == "data":
            value = _held(decode(content[0], self._resolve))
        elif request == "await":
            value = _awaited(decode(content[0], self._resolve))
        elif request == "printed":
            value = _printed()
        else:
            raise ValueError(request)
        return encoder.text(["value", encoder.encode(value)])

    def _call(self, encoder: _Encoder, function: object, arguments: list, keywords: list, _name: str) -> str:
        function, values = decode(function, self._resolve), [decode(value, self._resolve) for value in arguments]
        named = {name: decode(value, self._resolve) for name, value in keywords}
        before = [*arguments, *(value for _, value in keywords)]
        try:
            result = function(*values, **named)
        except BaseException as error:
            reset_limits()
            return self._raised(error, self._changed(encoder, before, [*values, *named.values()]))
        reset_limits()
        changed = self._changed(encoder, before, [*values, *named.values()])
        same = next((n for n, v in enumerate(values) if v is result and _isinstance(v, _CONTAINERS)), None)
        told = {"argument": same} if same is not None else encoder.encode(result)
        return encoder.text(["value", told, changed])

    @staticmethod
    def _changed(encoder: _Encoder, before: list, values: list) -> list:
        """[place, content] of the containers of the tests that a call has changed."""
        changed = []
        for place, (was, value) in enumerate(zip(before, values, strict=True)):
            if _isinstance(value, _CONTAINERS) or _type(value).__name__ == "ndarray":
                after = encoder.encode(value)
                if after != was:
                    changed.append([place, after])
        return changed

    def _refer(self, value: object) -> object:
        """Objects of the program, by number and kind."""
        if (theirs := self._their_numbers.get(_id(value))) is not None:
            return {theirs[0]: theirs[1]}
        number = self._numbers.get(_id(value))
        if number is None:
            number = self._numbers[_id(value)] = len(self._objects)
            self._objects.append(value)
        kind = _type(value)
        name = str(getattr(value if _isinstance(value, type) else kind, "__name__", ""))[:200]
        if _isinstance(value, type):
            if _issubclass(value, BaseException):
                return {"exception class": [number, name, self._bases(value)]}
            return {"class": [number, name]}
        if _isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType | staticmethod):
            return {"function": [number, str(getattr(value, "__name__", name))[:200]]}
        if _isinstance(value, types.CoroutineType):
            return {"coroutine": [number, name]}
        if _isinstance(value, BaseException) and number not in self._telling:
            return {"exception": self._exception(value)}
        if _issubclass(kind, (*_DATA, dict, Enum)):
            return {"holder": [number, name]}
        return {"object": [number, name]}

    def _bases(self, kind: type) -> list:
        """Python's own exceptions by name, those of libraries by module and name, the program's by number."""
        found = []
        for base in kind.__bases__:
            if TYPES.get(base.__name__) is base:
                found.append({"type": base.__name__})
            elif _issubclass(base, BaseException):
                found.append(self._class_of_exception(base))
        return found

    def _class_of_exception(self, kind: type) -> object:
        if TYPES.get(kind.__name__) is kind:
            return {"type": kind.__name__}
        if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind and kind.__module__ != "solution":
            return {"library class": [kind.__module__, kind.__name__, self._bases(kind)]}
        return self._refer(kind)

    def _exception(self, error: BaseException) -> list:
        number = self._numbers.get(_id(error))
        if number is None:
            number = self._numbers[_id(error)] = len(self._objects)
            self._objects.append(error)
        encoder = _Encoder(self._refer, self._most // 4)
        self._telling.add(number)
        try:
            arguments = [encoder.encode(value) for value in error.args]
            attributes = [[key, encoder.encode(v)] for key, v in vars(error).items() if key[:1] not in ("", "_")]
            text = str(error)[: failure.MAX_MESSAGE]
        except BaseException:
            arguments, text, attributes = [], failure.describe(error, {})["m"], []
        finally:
            self._telling.discard(number)
        return [number, self._class_of_exception(_type(error)), arguments, text, attributes]

    def _raised(self, error: BaseException, changed: list) -> str:
        """changed: containers of the tests, before it was raised."""
        theirs = getattr(error, "_of_the_tests", None)
        if _type(theirs) is int:
            return _Encoder(self._refer, self._most).text(["raise again", theirs])
        described = failure.describe(error, self._program.sources)
        too_large = _type(error).__name__ == "TooLarge" and _type(error).__module__.startswith("sandbox")
        try:
            message = ["too large", str(error)] if too_large else ["raise", self._exception(error), described, changed]
            return _Encoder(self._refer, self._most).text(message)
        except BaseException:
            return _Encoder(self._refer, self._most).text(
                ["raise", [0, {"type": "RuntimeError"}, [], "", []], described]
            )

    # -- what the tests hand over ------------------------------------------------------------------------------------

    def _resolve(self, tag: str, content: object) -> object:
        if tag == "ref":
            return self._objects[content]
        if tag == "global":
            module, name = content
            __import__(module)
            return operator.attrgetter(name)(sys.modules[module])
        key = tag, content[0] if tag == "error" else content
        if key not in self._theirs:
            stand_in = self._theirs[key] = self._stand_in(tag, content)
            self._their_numbers[_id(stand_in)] = key
        return self._theirs[key]

    def _stand_in(self, tag: str, number: int) -> object:
        if tag == "callback":
            return lambda *values, **named: self._ask("call", number, list(values), list(named.items()))
        if tag == "iterator":
            return self._iterated(number)
        if tag == "test object":
            return TestObject(self, number)
        if tag == "coroutine":
            return self._awaiting(number)
        if tag == "error":
            return self._error_of_the_tests(*number)
        raise ValueError(tag)

    async def _awaiting(self, number: int) -> object:
        return self._ask("await", number)

    def _iterated(self, number: int):  # noqa: ANN202
        while True:
            try:
                value = self._ask("next", number)
            except StopIteration:
                return
            yield value

    def _ask(self, request: str, *content: object) -> object:
        """Ask the tests, and answer whatever they ask meanwhile."""
        encoder = _Encoder(self._refer, self._most)
        self._dialogue.send(encoder.text([request, *(encoder.encode(item) for item in content)]))
        while True:
            message = self._dialogue.receive()
            if message[0] == "value":
                return decode(message[1], self._resolve)
            if message[0] == "raise":
                raise decode(message[1], self._resolve)
            self._dialogue.send(self._handled(message))

    def _error_of_the_tests(self, number: int, name: str, base: object, arguments: list) -> BaseException:
        kind, values = decode(base, self._resolve), [decode(value, self._resolve) for value in arguments]
        try:
            error = (kind if kind.__name__ == name else _type(name, (kind,), {}))(*values)
        except BaseException:
            error = Exception(*values)
        error._of_the_tests = number
        return error


class TestObject:
    """An object of a class of the tests, in the program's hands: attributes without an underscore."""

    def __init__(self, candidate: _Candidate, number: int) -> None:
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> object:
        return object.__getattribute__(self, "_candidate")._ask(
            "attribute", object.__getattribute__(self, "_number"), name
        )

    def __setattr__(self, name: str, value: object) -> None:
        object.__getattribute__(self, "_candidate")._ask(
            "set attribute", object.__getattribute__(self, "_number"), name, value
        )


def _held(value: object) -> object:
    """The data in an object of a class that derives from a container, or is an enumeration's member."""
    for kind, items in _DATA.items():
        if _isinstance(value, kind):
            return kind(items(value))
    if _isinstance(value, dict):
        return dict(dict.items(value))
    if _isinstance(value, Enum) and _isinstance(value, int | float | str):  # equal to its value, as Python has it
        return value.value
    raise TypeError("no data")


def _awaited(value: object) -> object:
    import asyncio

    async def wait() -> object:
        return await value

    return asyncio.run(wait())


def _printed() -> str:
    """What was written to stdout since this was asked for the last time."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()
    size = os.fstat(1).st_size
    data = os.pread(1, size, 0)
    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)
    return data.decode("utf-8", "replace")
