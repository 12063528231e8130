"""Judgements without the sandbox, for a corpus in which a hundred thousand programs have to be run.

`judge` executes a program of the corpus inside this process and says what the sandbox would say: the same verdict
rules, the same prelude, the same account of an exception.  It is for programs that this package wrote itself, never for
what a policy wrote.  `tests/minicode/test_shortcut.py` compares both on 2,000 random programs.
"""

from __future__ import annotations

import builtins
import io
import json
import sys
import types
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache

from sandbox import Judgement, TestCase, TestResult, Verdict
from sandbox.failure import describe
from sandbox.prelude import PRELUDE

_FILE = "solution.py"


@cache
def _builtins() -> dict[str, object]:
    """The names beneath those of every program: Python's own and the prelude's, as the sandbox has them."""
    namespace: dict[str, object] = {"__name__": "__prelude__"}
    exec(compile(PRELUDE, "<prelude>", "exec"), namespace)
    return vars(builtins) | {name: value for name, value in namespace.items() if not name.startswith("__")}


@lru_cache(maxsize=4096)
def _compiled(code: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(code, _FILE, "exec")


def _matches(output: str, wanted: str) -> bool:
    got = [line.strip() for line in output.strip().split("\n")]
    return got == [line.strip() for line in wanted.strip().split("\n")]


def _call(namespace: dict[str, object], test: TestCase) -> object:
    """The value of the function under test: a method of `Solution` where there is such a class, else a function."""
    solution = namespace.get("Solution")
    name = str(test.fn_name)
    function = getattr(solution(), name) if isinstance(solution, type) else namespace.get(name)
    if function is None:
        raise NameError(f"name '{name}' is not defined")
    return function(*(json.loads(line) for line in test.input.split("\n")))


def judge(code: str | None, test: TestCase, files: Mapping[str, str] | None = None) -> Judgement:
    """The judgement on one test.  A program with an endless loop is not run; it is known by its `while True`."""
    if code is None:
        return Judgement(Verdict.NO_CODE)
    if "while True" in code:
        return _judgement(Verdict.TIME_LIMIT, test)
    modules = {}
    for name, source in (files or {}).items():
        module = types.ModuleType(name.removesuffix(".py"))
        exec(source, module.__dict__)
        modules[module.__name__] = module
    before = {name: sys.modules.get(name) for name in modules}
    saved = sys.stdin, sys.stdout
    out = io.StringIO()
    verdict = Verdict.COMPILE_ERROR
    value = None
    try:
        sys.modules.update(modules)
        sys.stdin, sys.stdout = io.StringIO(test.input), out
        program = _compiled(code)
        verdict = Verdict.RUNTIME_ERROR
        namespace = {"__name__": "__main__", "__builtins__": dict(_builtins())}
        exec(program, namespace)
        if test.testtype == "functional":
            value = _call(namespace, test)
    except SystemExit:
        pass
    except BaseException as error:  # noqa: BLE001  whatever a program of the corpus raises is its outcome
        account = describe(error, {_FILE: code.split("\n")})
        return _judgement(verdict, test, exception_type=account["e"], message=account["m"])
    finally:
        sys.stdin, sys.stdout = saved
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    if test.testtype == "functional":
        right = (list(value) if isinstance(value, tuple) else value) == json.loads(test.output)
        return _judgement(Verdict.ACCEPTED if right else Verdict.WRONG_ANSWER, test, value=repr(value))
    right = _matches(out.getvalue(), test.output)
    return _judgement(Verdict.ACCEPTED if right else Verdict.WRONG_ANSWER, test, stdout=out.getvalue())


def _judgement(verdict: Verdict, test: TestCase, **details: str | None) -> Judgement:
    return Judgement(verdict, (TestResult(verdict, test.input, test.output, **details),), total_tests=1)
