"""The tests' side of an assertion test: what they ask of the program, and what the program asks of them.

A result that is plain data is rebuilt here and compared by Python itself; nothing of the program's takes part.  Any
other object stays with the program and gets a stand-in (`sandbox.standins`).
"""

from __future__ import annotations

import _thread  # not threading: that it is not loaded tells the runner that no program has loaded it
import sys
from collections.abc import Callable, Iterator
from types import CoroutineType

from .dialogue import Dialogue
from .failure import MAX_FRAMES, MAX_MESSAGE, MAX_NAME, MAX_SOURCE
from .objects import TYPES, Encoder, decode, update
from .standins import KINDS, RemoteClass, StandIn, cut, show

TESTS = "test_solution"  # the name of the tests' module
_CALLS_KEPT = 4


class CannotHandOver(BaseException):
    """The tests give the program an object that cannot leave their process; no fault of the program."""


class AnswerTooLarge(Exception):
    pass


class BadAnswer(Exception):
    """No text that the program's side of the conversation writes."""


class Remote:
    """Everything of the program that the tests have heard of, and everything of the tests that the program has."""

    def __init__(self, dialogue: Dialogue, most: int) -> None:
        self._dialogue, self._most = dialogue, most
        self._asking = _thread.RLock()  # the tests may have threads
        self._stand_ins: dict[int, object] = {}
        self._made: dict[int, StandIn] = {}  # the same for those that the tests made
        self._tested: dict[int, RemoteClass] = {}  # the same for classes that the tests know as such
        self._awaited: dict[int, tuple[object, int]] = {}  # id of a coroutine of the program → it and its number
        self._given: list[object] = []
        self._given_numbers: dict[int, int] = {}
        self._raised: list[BaseException] = []
        self.described: dict[int, dict] = {}  # id of an exception that came from the program → its description
        self.calls: list[tuple] = []  # the last few: name, arguments, keywords, and the result or exception
        self.count = 0
        self.own_output: object = None  # where the tests' own prints go; another sys.stdout wants the program's
        self._captured = False
        self.depth = 0  # of functions of the tests that the program is calling
        self.failed_inside: Callable[[], None] = lambda: None
        self.swallowed: Callable[[BaseException | None], None] = lambda error: None
        self.expects_stop = False  # the tests speak of StopIteration

    # -- questions ---------------------------------------------------------------------------------------------------

    def get(self, name: str) -> object:
        """What the program's module has under a name.  Raises KeyError."""
        value = self._ask(["get", name])
        if not (type(value) is RemoteClass and name.lstrip("_")[:1].isupper()):  # else what is tested is a function
            return value
        number = value._sandbox_number
        if number not in self._tested:
            self._tested[number] = RemoteClass(self, number, value._sandbox_name)
            vars(self._tested[number])["_sandbox_tested"] = True
        return self._tested[number]

    def names(self) -> list[str]:
        return [name for name in self._ask(["names"]) if isinstance(name, str)]

    def attribute(self, stand_in: object, name: str) -> object:
        return self._ask(["attribute", self._encoder().encode(stand_in), name])

    def operator(self, name: str, *operands: object) -> object:
        encoder = self._encoder()
        return self._ask(["operator", name, [encoder.encode(value) for value in operands]])

    def data(self, stand_in: object) -> object:
        return self._ask(["data", self._encoder().encode(stand_in)])

    def printed(self) -> str:
        return str(self._ask(["printed"]))

    def call(self, function: object, name: str, values: tuple, named: dict) -> object:
        encoder = self._encoder()
        arguments = [encoder.encode(value) for value in values]
        keywords = [[key, encoder.encode(value)] for key, value in named.items()]
        captures = sys.stdout is not self.own_output
        if captures and not self._captured:
            self.printed()
        self._captured = captures
        try:
            message = ["call", encoder.encode(function), arguments, keywords, name]
            result = self._ask(message, (*values, *named.values()))
        except BaseException as error:
            self._remember(name, arguments, keywords, error)
            raise
        finally:
            if captures:
                sys.stdout.write(self.printed())
        self._remember(name, arguments, keywords, result)
        return result

    def _remember(self, *call: object) -> None:
        self.count += 1
        self.calls = [*self.calls[1 - _CALLS_KEPT :], call]

    def last_calls(self) -> list[list[str]]:
        """[call, outcome] of the last few calls, as text, with the arguments as they were then."""
        told = []
        for name, arguments, keywords, outcome in self.calls:
            values = [self._shown(value) for value in arguments]
            values += [f"{key}={self._shown(value)}" for key, value in keywords]
            failed = isinstance(outcome, BaseException)
            told.append([
                cut(f"{name}({', '.join(values)})"),
                f"raised {type(outcome).__name__}" if failed else show(outcome),
            ])  # fmt: skip
        return told

    def _shown(self, encoded: object) -> str:
        try:
            return show(decode(encoded, lambda tag, content: _Name(f"<{tag}>")))
        except Exception:
            return "..."

    def made(self, value: object) -> object:
        """What a class returned: where the same object comes as an answer later, that is another stand-in."""
        if not isinstance(value, StandIn):
            return value
        number = value._sandbox_number
        if number not in self._made:
            self._made[number] = type(value)(self, number, value._sandbox_name, made=True)
        return self._made[number]

    def derived_from(self, name: str) -> tuple:
        raise CannotHandOver(f"the tests derive a class from {name}, which cannot enter their process")

    def _encoder(self) -> Encoder:
        return Encoder(self._refer, self._most)

    def _ask(self, message: list, arguments: tuple = ()) -> object:
        with self._asking:
            return self._asked(message, arguments)

    def _asked(self, message: list, arguments: tuple) -> object:
        self._dialogue.send(self._encoder().text(message))
        while True:
            try:
                kind, *content = self._dialogue.receive()
            except (ValueError, RecursionError) as error:
                raise BadAnswer(str(error)) from None
            if kind == "value":
                return self._value(content, arguments)
            if kind == "raise":
                raise self._error(message, arguments, *content)
            if kind == "raise again":
                raise self._no_end(message, self._raised[content[0]])
            if kind == "too large":
                raise AnswerTooLarge(cut(str(content[0])))
            self._dialogue.send(self._obeyed(kind, content))

    def _value(self, content: list, arguments: tuple) -> object:
        try:
            told, *changes = content
            self._change(arguments, *changes)
            if type(told) is dict and told.keys() == {"argument"}:
                return arguments[told["argument"]]
            return decode(told, self._resolve)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            raise BadAnswer(f"{type(error).__name__}: {error}") from None

    def _change(self, arguments: tuple, changes: list | tuple = ()) -> None:
        for place, after in changes:
            update(arguments[place], decode(after, self._resolve))

    def _no_end(self, message: list, error: BaseException) -> BaseException:
        """A function that raises StopIteration would end a loop over `map(function, values)` before its assertions."""
        if not isinstance(error, StopIteration | StopAsyncIteration) or message[:2] == ["operator", "next"]:
            return error
        return error if self.expects_stop else RuntimeError(f"the program raised {type(error).__name__}")

    def _error(self, message: list, arguments: tuple, told: list, described: dict, *changes: list) -> BaseException:
        try:
            self._change(arguments, *changes)
            error = self._no_end(message, self._exception(told))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as problem:
            raise BadAnswer(f"{type(problem).__name__}: {problem}") from None
        self.described[id(error)] = _plain_description(described)
        self._raised.append(error)  # keeps its id
        return error

    # -- requests of the program: functions and objects that the tests gave it --------------------------------------

    def _obeyed(self, kind: str, content: list) -> str:
        encoder = self._encoder()
        self.depth += 1
        try:
            number, *rest = (decode(item, self._resolve) for item in content)
            given = self._given[number]
            if kind == "call":
                values, named = rest
                result = given(*values, **dict(named))
            elif kind == "next":
                result = next(given)
            elif kind == "await":
                result = _driven(given)
            elif type(given).__module__ != TESTS or rest[0].startswith("_"):
                raise AttributeError(rest[0])
            elif kind == "attribute":
                result = getattr(given, rest[0])
            elif kind == "set attribute":
                result = setattr(given, *rest)
            else:
                raise AttributeError(kind)
            return encoder.text(["value", encoder.encode(result)])
        except BadAnswer:
            raise
        except BaseException as error:
            if isinstance(error, AssertionError):
                self.failed_inside()
            return encoder.text(["raise", self._refer_to_error(error)])
        finally:
            self.depth -= 1

    def _refer(self, value: object) -> object:
        if isinstance(value, StandIn):
            return {"ref": value._sandbox_number}
        if isinstance(value, BaseException):
            return self._refer_to_error(value)
        if isinstance(value, type) and (number := getattr(value, "_remote_number", None)) is not None:
            return {"ref": number}
        if isinstance(value, CoroutineType):
            known = self._awaited.get(id(value))
            return {"ref": known[1]} if known else {"coroutine": self._number(value)}
        if isinstance(value, type) or callable(value):
            module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
            if isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names and name:
                found: object = sys.modules.get(module)
                for part in name.split("."):
                    found = getattr(found, part, None)
                if found is value:
                    return {"global": [module, name]}
            return {"callback": self._number(value)}
        if isinstance(value, Iterator) and not hasattr(value, "read"):
            return {"iterator": self._number(value)}
        if getattr(type(value), "__module__", None) == TESTS:
            return {"test object": self._number(value)}
        raise CannotHandOver(f"the tests hand the program a {type(value).__name__}, which cannot leave their process")

    def _refer_to_error(self, error: BaseException) -> dict:
        """The program's own by number; of the tests' class, the nearest base that the program knows, and arguments."""
        if "_remote" in vars(error):
            return {"ref": vars(error)["_remote"][1]}
        number = next((n for n, raised in enumerate(self._raised) if raised is error), len(self._raised))
        self._raised[number:] = [error] if number == len(self._raised) else self._raised[number:]
        base: object = {"type": "Exception"}
        for kind in type(error).__mro__:
            if "_remote_number" in vars(kind) or TYPES.get(kind.__name__) is kind:
                base = self._encoder().encode(kind)
                break
        try:
            arguments = [self._encoder().encode(value) for value in error.args]
        except (CannotHandOver, Exception):
            arguments = [show(error, str)]
        return {"error": [number, type(error).__name__, base, arguments]}

    def _number(self, value: object) -> int:
        number = self._given_numbers.get(id(value))
        if number is None:
            number = self._given_numbers[id(value)] = len(self._given)
            self._given.append(value)
        return number

    # -- what the program sent ---------------------------------------------------------------------------------------

    def _resolve(self, tag: str, content: object) -> object:
        if tag in ("callback", "iterator", "test object"):
            return self._given[content]
        if tag == "error":
            return self._raised[content]
        if tag == "exception":
            return self._exception(content)
        if tag == "exception class":
            return self._exception_class(*content)
        number, name = content
        if type(number) is not int or type(name) is not str:
            raise ValueError("a reference")
        if tag == "coroutine":
            awaiting = self._awaiting(number)
            self._awaited[id(awaiting)] = awaiting, number
            return awaiting
        if number not in self._stand_ins:
            self._stand_ins[number] = KINDS[tag](self, number, name[:200])
        return self._stand_ins[number]

    async def _awaiting(self, number: int) -> object:
        return self._ask(["await", {"ref": number}])

    def _exception_class(self, number: int, name: str, bases: list) -> type:
        if number not in self._stand_ins:
            real = tuple(dict.fromkeys(self._base(base) for base in bases)) or (Exception,)
            body = {"_remote_number": number, "__module__": "solution", "__init__": lambda *_, **__: None}

            def new(kind: type, *values: object, **named: object) -> object:
                own = kind is self._stand_ins.get(number)  # else a class that derives from it
                return self.call(kind, name, values, named) if own else real[0].__new__(kind, *values)

            body["__new__"] = new
            try:
                self._stand_ins[number] = type(name, real, body)
            except TypeError:
                self._stand_ins[number] = type(name, (Exception,), body)
        return self._stand_ins[number]

    def _base(self, told: dict) -> type:
        ((tag, content),) = told.items()
        if tag == "type":
            kind = TYPES[content]
        elif tag == "library class":
            module, name, bases = content
            known = module.partition(".")[0] in sys.stdlib_module_names
            kind = getattr(sys.modules.get(module), name, None) if known else None
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                kind = self._base(bases[0]) if bases else Exception
        else:
            kind = self._exception_class(*content)
        if not issubclass(kind, BaseException):
            raise ValueError("no exception")
        return kind

    def _exception(self, told: list) -> BaseException:
        number, kind, arguments, text, attributes = told
        if number in self._stand_ins and isinstance(self._stand_ins[number], BaseException):
            return self._stand_ins[number]
        error = _made(self._base(kind), [decode(value, self._resolve) for value in arguments], str(text))
        try:
            error._remote = self, number
            vars(error).update((name, decode(v, self._resolve)) for name, v in attributes if name[0] != "_")
        except AttributeError:
            pass
        self._stand_ins[number] = error
        return error


def _driven(coroutine: CoroutineType) -> object:
    """What a coroutine of the tests returns that waits for nothing but its turn."""
    try:
        while coroutine.send(None) is None:
            pass
    except StopIteration as end:
        return end.value
    raise RuntimeError("a coroutine of the tests waits for something, in a coroutine of the program")


def _plain_description(told: object) -> dict:
    """`failure.describe`'s fields and no others, of a size that a report has room for."""
    told = told if type(told) is dict else {}
    frames = told.get("f")
    fits = type(frames) is list and len(frames) <= MAX_FRAMES and len(str(frames)) < MAX_FRAMES * 4 * MAX_SOURCE
    kind, message = str(told.get("e"))[:MAX_NAME], str(told.get("m"))[:MAX_MESSAGE]
    return {"e": kind, "m": message, "f": frames if fits else []}


def _made(kind: type, arguments: list, text: str) -> BaseException:
    """An exception with these arguments and this text, whatever its class demands of its arguments."""
    known = {"__str__": lambda self: text, "__getattr__": _attribute_of_an_error}
    try:
        if "_remote_number" in vars(kind):  # of the program: its `__init__` is not here
            named = type(kind.__name__, (kind,), known)
            error = named.__new__(named, *arguments)
            error.args = tuple(arguments)
            return error
        return kind(*arguments)
    except TypeError:
        return type(kind.__name__, (kind,), known).__new__(kind)


def _attribute_of_an_error(self: BaseException, name: str) -> object:
    if name.startswith("__") or "_remote" not in vars(self):
        raise AttributeError(name)
    remote, number = vars(self)["_remote"]
    return remote._ask(["attribute", {"ref": number}, name])


class _Name(str):
    __repr__ = str.__str__
