"""The process of the tests: run test code against stand-ins for what a program defines, and say what came of it.

The program lives in another process (`sandbox.candidate`); nothing of it ever runs here, and nothing of the tests is
ever there.  A verdict is what this process says, so that a program that ends, hangs or lies has no way to a better one.
"""

from __future__ import annotations

import builtins
import functools
import io
import itertools
import json
import random
import sys
import types
from typing import NamedTuple

from . import pytest_like
from .assertions import EXAMINER, Prepared, prepare
from .dialogue import Dialogue
from .remote import TESTS, AnswerTooLarge, CannotHandOver, Remote
from .runner import reset_limits
from .standins import StandIn, cut, same, show, type_of
from .wire import MAX_HEADER

TESTS_FILE = "tests.py"


def examine(source: str, program_names: tuple[str, ...], keep_going: bool, dialogue: Dialogue, most: int) -> dict:
    """The header of the only report: {"s": "tested", "ok", "n" places, "k" of them passed, "a": the first failure}.

    keep_going: go on behind a failed assertion where nothing around it could want to see the failure.
    """
    remote = Remote(dialogue, most)
    try:
        prepared = prepare(source, program_names)
        examination = _Examination(prepared, remote, keep_going)
        examination.run(source)
        return examination.report()
    except CannotHandOver as problem:
        return {"s": "unfit", "m": cut(str(problem))}
    except AnswerTooLarge as problem:
        return {"s": "too large", "m": cut(str(problem))}


class _Failure(NamedTuple):
    place: int | None
    error: BaseException
    told: dict


class _Place:
    """One assertion under way; a context manager around it."""

    def __init__(self, examination: _Examination, number: int, free: bool) -> None:
        self.examination, self.number, self.free = examination, number, free
        self.sides: dict[str, object] = {}
        self.asked: dict[str, int] = {}  # calls of the program that each side took

    def __enter__(self) -> None:
        self.examination.under_way.append(self)
        self.count = self.began = self.examination.remote.count

    def note(self, side: str, value: object) -> object:
        count = self.examination.remote.count
        self.asked[side], self.count = count - self.count, count
        self.sides[side] = value
        return value

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        return self.examination.ended(self, error)


class _Examination:
    """Runs the tests; also what the prepared code calls."""

    def __init__(self, prepared: Prepared, remote: Remote, keep_going: bool) -> None:
        self.remote, self._prepared, self._keep_going = remote, prepared, keep_going
        self.under_way: list[_Place] = []
        self._passed: dict[int, bool] = {}
        self._failures: list[_Failure] = []
        self._decided: _Failure | None = None  # the first failure that no code of the tests has dealt with
        self._hidden = False  # an assertion failed in a function of the tests that the program called
        remote.failed_inside, remote.swallowed = self._hide, self._swallowed

    # -- what the prepared code calls --------------------------------------------------------------------------------

    same = staticmethod(same)
    type_of = staticmethod(type_of)

    @staticmethod
    def class_of(value: object) -> object:
        return type_of(value) if isinstance(value, StandIn) else value.__class__

    def place(self, number: int, free: bool) -> _Place:
        return _Place(self, number, free)

    def left(self, value: object) -> object:
        return self.under_way[-1].note("left", value)

    def right(self, value: object) -> object:
        return self.under_way[-1].note("right", value)

    # ----------------------------------------------------------------------------------------------------------------

    def ended(self, place: _Place, error: BaseException | None) -> bool:
        """Note how an assertion ended; whether its failure ends here."""
        self.under_way.pop()
        if error is None:
            self._passed.setdefault(place.number, True)
            return False
        self._passed[place.number] = False
        if isinstance(error, CannotHandOver | AnswerTooLarge):
            return False
        if not any(failure.error is error for failure in self._failures):
            self._failures.append(_Failure(place.number, error, self._described(error, place)))
        if not (self._keep_going and place.free and isinstance(error, Exception)) or self.remote.depth:
            return False
        self._decide(error)
        return True

    def _hide(self) -> None:
        self._hidden = True

    def _swallowed(self, error: BaseException | None) -> None:
        if any(failure.error is error for failure in self._failures):
            self._hidden = True

    def _decide(self, error: BaseException) -> None:
        if self._decided is None:
            known = (failure for failure in self._failures if failure.error is error)
            self._decided = next(known, None) or _Failure(None, error, self._described(error, None))

    def _described(self, error: BaseException, place: _Place | None) -> dict:
        """What a person would want to know of a failure."""
        described = self.remote.described.get(id(error))
        told: dict = {"asserted": described is None and isinstance(error, AssertionError)}
        told |= described or {"e": type(error).__name__, "m": show(error, str), "f": []}
        if place is not None:
            where = self._prepared.places[place.number]
            told |= {"line": where.line, "source": where.source}
            told |= {side: show(value) for side, value in place.sides.items()}
            told["swap"] = bool(place.asked.get("right") and not place.asked.get("left"))
            calls = min(self.remote.count - place.began, 2) or 1
        else:
            told |= self._line_of(error)
            calls = 1
        told["calls"] = self.remote.last_calls()[-calls:]
        return told

    def _line_of(self, error: BaseException) -> dict:
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == TESTS_FILE:
                line = trace.tb_lineno
            trace = trace.tb_next
        return {"line": line, "source": cut(self._lines[line - 1].strip()) if 0 < line <= len(self._lines) else ""}

    def run(self, source: str) -> None:
        self._lines = source.split("\n")
        self.remote.expects_stop = "StopIteration" in source or "StopAsyncIteration" in source
        module = types.ModuleType(TESTS)
        sys.modules[TESTS], sys.modules["solution"] = module, _program_module(self.remote)
        sys.modules["pytest"] = pytest_like.module()
        sys.stdout = sys.stderr = self.remote.own_output = _Nowhere()
        reset_limits()
        random.seed(source)  # the same inputs for every program, and none that it could foresee
        namespace = vars(module)
        known = dict(vars(builtins))
        namespace |= {"__builtins__": known, "__file__": TESTS_FILE, EXAMINER: self}
        self._guarded(lambda: self._bind(namespace, known))
        if self._decided is not None:
            return
        self._guarded(lambda: exec(compile(self._prepared.tree, TESTS_FILE, "exec", dont_inherit=True), namespace))
        if self._decided is not None and not self._keep_going:
            return
        fixtures = {n: f for n, f in namespace.items() if getattr(f, "_fixture", False) is True}
        for name in self._prepared.tests:
            for test in _tests(namespace.get(name), fixtures, self.remote):
                self._guarded(test)
                if self._decided is not None and not self._keep_going:
                    return

    def _bind(self, namespace: dict, known: dict) -> None:
        """Give the tests the names of the program; nobody else defines what the program should have."""
        names = set(self.remote.names())  # answered once the program's module has run
        for name in self._prepared.free_names:
            known.pop(name, None)
            if name in names:
                namespace[name] = self.remote.get(name)

    def _guarded(self, step) -> None:  # noqa: ANN001
        try:
            step()
        except (CannotHandOver, AnswerTooLarge):
            raise
        except pytest_like.Skipped:
            pass
        except BaseException as error:
            self._decide(error)

    def report(self) -> dict:
        decided = self._decided
        if decided is None and self._hidden:
            decided = next((failure for failure in self._failures), None)
        accepted, told = decided is None and not self._hidden, {} if decided is None else {"a": decided.told}
        places, passed = len(self._prepared.places), sum(self._passed.values())
        for costly in ("f", "calls", "m", "right", "left"):  # texts of the program may be all escapes
            if told and len(json.dumps(told)) > MAX_HEADER // 2:
                told["a"] = told["a"] | {costly: [] if costly in ("f", "calls") else ""}
        return {"s": "tested", "ok": accepted, "n": places, "k": passed} | told


def _program_module(remote: Remote) -> types.ModuleType:
    class Module(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            try:
                return remote.get(name)
            except KeyError:
                raise AttributeError(f"module 'solution' has no attribute {name!r}") from None

    return Module("solution")


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


# -- what pytest would collect -----------------------------------------------------------------------------------------


def _tests(found: object, fixtures: dict, remote: Remote):  # noqa: ANN202
    """Calls without arguments, one per test."""
    if isinstance(found, types.FunctionType):
        yield from _of_function(found, fixtures, remote, ())
    elif isinstance(found, type) and not getattr(found, "_skipped", False):
        names = [name for name in dir(found) if name.startswith("test")]
        lines = {name: getattr(getattr(found, name), "__code__", None) for name in names}
        for name in sorted(names, key=lambda n: lines[n].co_firstlineno if lines[n] else 0):
            yield from _of_method(found, name, fixtures, remote)


def _of_method(kind: type, name: str, fixtures: dict, remote: Remote):  # noqa: ANN202
    unittest = sys.modules.get("unittest")
    is_case = unittest is not None and issubclass(kind, unittest.TestCase)
    methods = {n: f for n, f in vars(kind).items() if getattr(f, "_fixture", False) is True}
    for call in _of_function(getattr(kind, name), {**fixtures, **methods}, remote, (None,)):

        def test(call=call) -> None:  # noqa: ANN001
            owner = kind(name) if is_case else kind()
            before, after = ("setUp", "tearDown") if is_case else ("setup_method", "teardown_method")
            if is_case:
                kind.setUpClass()
            _if_there(owner, before)
            try:
                call(owner)
            finally:
                _if_there(owner, after)

        yield test


def _if_there(owner: object, name: str) -> None:
    method = getattr(owner, name, None)
    if method is not None:
        method(*[None] * (len(_parameters(method)) if name.endswith("_method") else 0))


def _of_function(function: types.FunctionType, fixtures: dict, remote: Remote, before: tuple):  # noqa: ANN202
    if getattr(function, "_skipped", False) or getattr(function, "__unittest_skip__", False):
        return
    tables = getattr(function, "_rows", [])
    for rows in itertools.product(*([(names, row) for row in rows] for names, rows in tables)):
        given = {name: value for names, row in rows for name, value in zip(names, row, strict=True)}
        wanted = list(_parameters(function))[len(before) :]
        in_use = _closure([*wanted, *(n for n, f in fixtures.items() if f._autouse)], fixtures)
        with_parameters = [(n, fixtures[n]._params) for n in in_use if n in fixtures and fixtures[n]._params]
        for choice in itertools.product(*(values for _, values in with_parameters)):
            chosen = dict(zip((n for n, _ in with_parameters), choice, strict=True))
            yield functools.partial(_run, function, wanted, given, chosen, fixtures, remote)


def _parameters(function: object) -> dict:
    import inspect  # 10 ms and 2 MB that few tests need

    return dict(inspect.signature(function).parameters)


def _closure(names: list[str], fixtures: dict) -> list[str]:
    found: list[str] = []
    for name in names:
        if name not in found:
            found.append(name)
            if name in fixtures:
                found += [n for n in _closure(list(_parameters(fixtures[name])), fixtures) if n not in found]
    return found


def _run(function, wanted, given, chosen, fixtures, remote, *owner) -> None:  # noqa: ANN001
    made: dict[str, object] = dict(given)
    open_generators = []

    def value(name: str) -> object:
        if name in made:
            return made[name]
        if name == "capsys":
            made[name] = _Capsys(remote)
        elif name == "request":
            made[name] = types.SimpleNamespace(param=None)
        elif name == "self":
            return owner[0]
        elif name in fixtures:
            needed = list(_parameters(fixtures[name]))
            values = [types.SimpleNamespace(param=chosen.get(name)) if n == "request" else value(n) for n in needed]
            result = fixtures[name](*values)
            if isinstance(result, types.GeneratorType):
                open_generators.append(result)
                result = next(result)
            made[name] = result
        else:
            raise CannotHandOver(f"the tests need the fixture {name!r}, which is not there")
        return made[name]

    defaults = {n for n, p in _parameters(function).items() if p.default is not p.empty}
    for name, each in fixtures.items():
        if each._autouse:
            value(name)
    arguments = {n: value(n) for n in wanted if n in made or n in fixtures or n not in defaults}
    try:
        result = function(*owner, **arguments)
        if isinstance(result, types.CoroutineType):
            import asyncio

            asyncio.run(result)
    finally:
        for generator in reversed(open_generators):
            next(generator, None)


class _Capsys:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        remote.printed()

    def readouterr(self) -> object:
        return types.SimpleNamespace(out=self._remote.printed(), err="")
