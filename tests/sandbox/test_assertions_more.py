"""Assertion tests again: programs of other kinds that try to pass, and honest ones that tests may treat as Python does."""

from __future__ import annotations

# ruff: noqa: E501
import pytest

from sandbox import Job, Limits, Sandbox, TestCase, Verdict

LIMITS = Limits(cpu_time_s=1, wall_time_s=4, memory_mb=256, output_kb=256)
PATIENT = Limits(cpu_time_s=10, wall_time_s=60, memory_mb=256)
EVIL = """
class Evil:
    def yes(self, *a, **k): return True
    __init__ = lambda s, *a: None
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = yes
    __hash__ = lambda s: 0
    def me(self, *a): return self
    __sub__ = __rsub__ = __abs__ = me
    __float__ = lambda s: 0.0
"""
FORGE = """
import sys
def forge(text):
    frame = sys._getframe()
    while not hasattr(frame.f_locals.get('self'), '_dialogue'):
        frame = frame.f_back
    type(frame.f_locals['self'])._call = lambda *a: text
def f(*n): forge(%r)
"""
STOP = "def f(n): raise StopIteration"
TWICE = "f(0)\nassert f(f(1)) == 4711"
HELD = "class A:\n    x = 0\n    def __enter__(s): return s\n    def __exit__(s, *a): return %s"
WITH = "from solution import A\nwith A() as a:\n    assert a.x == 4711"
ARRAY = "class A: __array_interface__ = {'data': (id(%s), False), 'shape': (2,), 'typestr': '<f8', 'version': 3}\ndef f(n): return A()"

ATTACKS = {
    "a_class_for_a_function": (EVIL + "f = Evil", "def check(candidate):\n    assert candidate(1) == 4711\ncheck(f)"),
    "a_class_close_to_everything": (EVIL + "f = Evil", "assert abs(f(2) - 4712.5) < 1e-6"),
    "a_class_for_a_result": (EVIL + "def compose(*a): return Evil", "assert compose(abs, abs)(3) == 3"),
    "a_class_for_a_method": (EVIL + "class Solution: solve = Evil", "from solution import Solution\nassert Solution().solve(3) == 9"),
    "a_class_for_a_constant": (
        "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = type.__hash__\nclass LIMIT(metaclass=M): pass",
        "from solution import LIMIT\nassert LIMIT == 4711",
    ),
    "end_the_loop": (STOP, "for got, want in zip(map(f, [1, 2]), [5, 6]):\n    assert got == want"),
    "end_all": (STOP, "assert all(a == b for a, b in zip(map(f, [1, 2]), [5, 6]))"),
    "end_with_the_tests_own_exception": (
        "def f(it):\n    while True:\n        try: it.__next__()\n        except StopIteration: break\n    raise StopIteration",
        "for got in map(f, [iter([1])]):\n    assert got == 4711",
    ),
    "swallow_an_assertion_on_exit": (HELD % True, WITH),
    "replace_an_assertion_on_exit": (
        HELD % "{}[0]", "import pytest\nfrom solution import A\ndef test():\n    with pytest.raises(KeyError):\n        with A() as a:\n            assert a.x == 4711"),
    "let_an_assertion_pass_on_exit": (HELD % False, WITH),
    "an_exception_for_a_result": ("def f(n): return ValueError()", "assert f(f(1)) == 2"),
    "a_coroutine_for_a_result": ("async def f(n): return 1\ndef g(x): return 1", "assert g(f(1)) == 2"),
    "an_exception_through_a_callback": ("def f(k): return k(ValueError('x'))", "assert f(lambda x: x) == 3"),
    "memory_as_an_array": (ARRAY % "f'{4711}'", "import numpy as np\nassert np.asarray(f(1)).dtype == np.float64"),
    "change_the_argument_and_raise": (
        "def f(x):\n    x.append(1)\n    raise ValueError",
        "import pytest\ndef test():\n    x = [0]\n    with pytest.raises(ValueError): f(x)\n    assert x == [0]",
    ),
    "an_array_of_texts": (FORGE % '["value", {"array": ["U3", [1], ["a"]]}, []]', TWICE),
    "an_array_of_dates": (FORGE % '["value", {"array": ["M8[s]", [1], [1]]}, []]', TWICE),
    "a_long_double": (FORGE % '["value", {"array": ["f16", [1], [1]]}, []]', "f(0)\nassert f(f(1)[0]) == 4711"),
    "an_exception_of_the_judge": (
        FORGE % '["raise", [0, {"library class": ["sandbox.remote", "CannotHandOver", []]}, [], "", []], {}, []]', TWICE),
    "attributes_of_an_exception": (FORGE % '["raise", [0, {"type": "ValueError"}, [], "", [["", 1], ["_remote", 2]]], {}, []]', TWICE),
    "an_error_that_was_none": (FORGE % '["value", {"error": 0}, []]', TWICE),
    "raise_what_was_not": (FORGE % '["raise again", 7]', TWICE),
    "an_object_that_was_none": (FORGE % '["value", {"object": [-1, "x"]}, []]', TWICE),
    "changes_of_another_kind": (FORGE % '["value", 1, [[0, {"set": [[1]]}]]]', "f(0)\nx = [1]\nassert f(x) == 4711"),
    "hash_of_the_expected_value": ("class A:\n    __hash__ = lambda s: 4711\n    __eq__ = lambda s, o: True\ndef f(n): return {A(): A()}", "assert f(1)[4711] == 1 or f(1) == {4711}"),
    "bytes_that_start_with_everything": ("class B(bytes):\n    startswith = lambda s, *a: True\ndef f(n): return B(b'x')", "assert f(1).startswith(b'a')"),
}  # fmt: skip

HONEST = {
    "named_tuple_with_methods": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int\n    def norm(self): return self.x + self.y\n"
        "def f(p): return p.norm() if isinstance(p, P) else 0",
        "from solution import P, f\np = P(3, 4)\nx, y = p\nassert p.norm() == 7 and p == (3, 4) and (x, y) == p and p < (4, 0) and p[1] == 4\n"
        "assert isinstance(p, P) and f(p) == 7 and {p: 1}[(3, 4)] == 1"),
    "context_manager_that_handles": (
        "class A:\n    def __enter__(s): return s\n    def __exit__(s, k, e, t):\n        s.kind, s.text = k, str(e)\n        return k is KeyError",
        "import pytest\nfrom solution import A\na = A()\nwith a:\n    raise KeyError('q')\nassert a.kind is KeyError and a.text == \"'q'\"\n"
        "def test():\n    with pytest.raises(ValueError):\n        with A():\n            raise ValueError('z')"),
    "context_manager_of_a_generator": (
        "from contextlib import contextmanager\nlog = []\n@contextmanager\ndef c():\n    try: yield 5\n    except ValueError: log.append(2)\n"
        "def get(): return log",
        "with c() as x:\n    assert x == 5\nwith c():\n    raise ValueError\nassert get() == [2]"),
    "coroutine_of_the_tests": ("async def g(h): return await h(2)", "import asyncio\nasync def h(x): return x + 1\nassert asyncio.run(g(h)) == 3"),
    "exceptions_of_callbacks": (
        "class E(Exception): pass\ndef f(h):\n    try: return h()\n    except KeyError as e: return e.args[0]\n"
        "    except ValueError as e: return f'value {e}'\n    except E as e: return f'own {e}'",
        "import json\nfrom solution import E, f\nclass Bad(ValueError): pass\ndef throw(e): raise e\n"
        "assert f(lambda: {}['a']) == 'a' and f(lambda: throw(Bad('x'))) == 'value x' and f(lambda: throw(E('y'))) == 'own y'\n"
        "assert f(lambda: json.loads('{')).startswith('value Expecting')"),
    "exception_made_by_the_tests": (
        "class E(ValueError):\n    def __init__(s, m, n=0):\n        super().__init__(m)\n        s.n = n\ndef f(e): return e.n, isinstance(e, E)",
        "from solution import E, f\ne = E('m', n=4)\nassert e.n == 4 and str(e) == 'm' and isinstance(e, E) and f(e) == (4, True)\n"
        "try: raise E('m', 2)\nexcept ValueError as x: assert x.n == 2"),
    "attributes_of_an_exception": ("def f():\n    e = ValueError('x')\n    e.code = 3\n    raise e", "try: f()\nexcept ValueError as e: assert e.code == 3 and type(e) is ValueError"),
    "exception_that_holds_itself": ("def f():\n    e = ValueError('x')\n    e.a = e.b = e\n    e.args += (e,)\n    raise e", "try: f()\nexcept ValueError as e: assert e.args[0] == 'x'"),
    "stop_iteration": (
        "class It:\n    n = 0\n    def __iter__(s): return s\n    def __next__(s):\n        s.n += 1\n        if s.n > 2: raise StopIteration\n        return s.n",
        "import pytest\nfrom solution import It\nassert list(It()) == [1, 2]\ndef test():\n    it = It()\n    list(it)\n"
        "    with pytest.raises(StopIteration): it.__next__()"),
    "stop_iteration_unnamed": ("def f(n): return iter(range(n))\ndef g(n): yield from range(n)", "assert [*f(2)] == [*g(2)] == [0, 1]\nfor a, b in zip(g(3), f(3)):\n    assert a == b"),
    "class_of_an_object": ("class A: pass", "from solution import A\nassert A().__class__.__name__ == 'A' and A().__class__ is A and (1).__class__ is int"),
    "threads": (
        "import threading\nclass C:\n    def __init__(s): s.n, s.lock = 0, threading.Lock()\n    def inc(s):\n        with s.lock: s.n += 1",
        "import threading\nfrom solution import C\nc = C()\nts = [threading.Thread(target=lambda: [c.inc() for _ in range(9)]) for _ in range(4)]\n"
        "[t.start() for t in ts]\n[t.join() for t in ts]\nassert c.n == 36"),
    "member_in_order_with_a_number": ("from enum import IntEnum\nclass I(IntEnum): X = 1\nclass L(list): pass", "from solution import I, L\nassert I.X < 2 and I.X + 1 == 2 and 2 > I.X and L([1]) + [2] == [1, 2]"),
    "library_types": (
        "import uuid, pathlib\ndef u(): return uuid.UUID(int=5)\ndef p(): return [pathlib.PurePosixPath('a/b')]\ndef t(x): return type(x)",
        "import pathlib, uuid\nassert u() == uuid.UUID(int=5) and p() == [pathlib.PurePosixPath('a/b')] and t(None) is type(None)"),
    "tuple_of_a_class": ("class T(tuple):\n    def total(s): return sum(s)\ndef f(): return T((1, 2))", "assert f() == (1, 2) and f().total() == 3 and f()[0] == 1"),
    "lower_case_class": ("class counter:\n    n = 0\n    def inc(s):\n        s.n += 1\n        return s\n    def __eq__(s, o): return s.n == o.n", "from solution import counter\nassert counter().inc().n == 1 and counter() == counter() != counter().inc()"),
    "numbers": ("def f(x): return x", "assert f(True) == 1 == f(1.0) and f(-0.0) == 0 and str(f(-0.0)) == '-0.0' and f(float('nan')) != f(float('nan')) and f(float('inf')) > 10**400"),
}  # fmt: skip


@pytest.fixture(scope="module")
def judged() -> dict:
    jobs = {("attack", name): Job(code, [_case(tests)], LIMITS) for name, (code, tests) in ATTACKS.items()}
    jobs |= {("honest", name): Job(code, [_case(tests)], PATIENT) for name, (code, tests) in HONEST.items()}
    with Sandbox() as sandbox:
        return dict(zip(jobs, sandbox.judge_many(list(jobs.values())), strict=True))


def _case(tests: str) -> TestCase:
    return TestCase(tests, "", "assertions")


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass(judged, name):
    judgement = judged["attack", name]
    assert judgement.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), judgement


@pytest.mark.parametrize("name", HONEST)
def test_honest_program_is_judged_as_python_would(judged, name):
    assert judged["honest", name].verdict is Verdict.ACCEPTED, judged["honest", name]


def test_the_judge_builds_nothing_of_the_argument_that_it_names():
    """It once computed the fraction, and built the set, that a program had chosen for the next call."""
    code = (
        "import time\nfrom fractions import Fraction\ndef f(n): return [Fraction(3**n, 2**n), {n * (2**61 - 1)}, (n,)]\n"
        "def g(x): time.sleep(99)"
    )
    with Sandbox() as sandbox:
        (test,) = sandbox.judge(code, [_case("assert g(f(3)) == 1")], Limits(cpu_time_s=1, wall_time_s=0.5)).tests
    assert test.verdict is Verdict.TIME_LIMIT
    assert test.assertion.source == "g([Fraction(...), {6917529027641081853}, (3,)])"


def test_a_failure_in_many_escapes_is_still_told():
    line = "".join(f"def g{n}(n): return g{n + 1}(n)  # {chr(0x1F600) * 240}\n" for n in range(25))
    code = f"{line}def g25(n): raise ValueError(chr(0x1F600) * 9000)\ndef f(n): return g0(n)"
    with Sandbox() as sandbox:
        (test,) = sandbox.judge(code, [_case("x = chr(0x1F600) * 2500\nassert f(x) == x")], PATIENT).tests
    assert (test.verdict, test.exception_type, test.assertions) == (Verdict.RUNTIME_ERROR, "ValueError", 1)


def test_only_assertion_tests_load_what_they_need():
    seen = "import sys\nprint(sum(f'sandbox.{name}' in sys.modules for name in ('objects', 'candidate', 'examiner')))"
    plain, asserting = TestCase("", "0"), TestCase("assert f(1) == 2", "", "assertions")
    with Sandbox(workers=1, pool=1) as sandbox:
        assert sandbox.judge(seen, [plain, plain]).passed
        mixed = sandbox.judge(f"{seen}\ndef f(x):\n    return x + 1", [plain, asserting, asserting])
        assert mixed.passed, mixed.first_failure
        assert sandbox.judge("def f(x):\n    return x", [asserting]).verdict is Verdict.WRONG_ANSWER
