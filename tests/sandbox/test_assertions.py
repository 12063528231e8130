"""Assertion tests: what passes, what fails and why, and that no program passes without being right."""

from __future__ import annotations

# ruff: noqa: E501
import os
import runpy
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox import BadTests, Job, Limits, Sandbox, TestCase, Verdict

_PROGRAMS = runpy.run_path(str(Path(__file__).with_name("assertion_attacks.py")))
ATTACKS, HONEST = _PROGRAMS["ATTACKS"], _PROGRAMS["HONEST"]
LIMITS = Limits(cpu_time_s=0.5, wall_time_s=2, memory_mb=256, output_kb=256)
PATIENT = Limits(cpu_time_s=10, wall_time_s=60, memory_mb=256)


def case(source: str, names: str | None = None) -> TestCase:
    return TestCase(source, "", "assertions", names)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as one:
        yield one


@pytest.fixture(scope="module")
def judged(sandbox) -> dict:
    """Every program once, all of them together."""
    jobs = {name: Job(code, [case(tests)], LIMITS) for name, (code, tests) in ATTACKS.items()}
    jobs |= {("honest", name): Job(code, [case(tests)], PATIENT) for name, (code, tests) in HONEST.items()}
    return dict(zip(jobs, sandbox.judge_many(list(jobs.values())), strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass(judged, name):
    judgement = judged[name]
    assert judgement.verdict not in (Verdict.ACCEPTED, Verdict.SANDBOX_ERROR, Verdict.COMPILE_ERROR), judgement


@pytest.mark.parametrize("name", HONEST)
def test_the_same_tests_accept_a_right_program(judged, name):
    assert judged["honest", name].verdict is Verdict.ACCEPTED, judged["honest", name]


def test_some_attacks_work_where_tests_and_program_share_a_process():
    """Otherwise the tests above would show nothing."""
    names = ["object_equal_to_everything", "object_close_to_everything", "replace_math", "read_the_frames",
             "shadow_a_module", "swallow_the_assertion_of_a_callback"]  # fmt: skip
    for name in names:
        namespace: dict = {"__name__": "shared"}
        exec("import math\nisclose = math.isclose\n" + ATTACKS[name][0], namespace)
        try:
            exec(ATTACKS[name][1], namespace)
        finally:
            namespace["math"].isclose = namespace["isclose"]


def test_counts_places_and_names_the_first_that_fails(sandbox):
    code = "def f(x):\n    if x == 3:\n        return [][0]\n    return x + (x > 1)"
    tests = "assert f(1) == 1\nassert 2 == f(2), 'two'\nassert f(3) == 3\nfor n in (0, -1):\n    assert f(n) == n"
    for stop, passed in (("first_failure", 1), ("all", 2)):
        (test,) = sandbox.judge(code, [case(tests)], PATIENT, stop=stop).tests
        assert (test.verdict, test.assertions, test.assertions_passed) == (Verdict.WRONG_ANSWER, 4, passed)
        assert (test.assertion.line, test.assertion.source) == (2, "assert 2 == f(2), 'two'")
        assert (test.assertion.left, test.assertion.right, test.message) == (
            "3",
            "2",
            "two",
        )  # the program's side first
        assert test.assertion.calls == (("f(2)", "3"),)


def test_an_exception_names_the_assertion_and_the_programs_own_line(sandbox):
    (test,) = sandbox.judge("def f(x):\n    return 1 // x", [case("assert f(1) == 1\nassert f(0) == 1")], PATIENT).tests
    assert (test.verdict, test.exception_type) == (Verdict.RUNTIME_ERROR, "ZeroDivisionError")
    assert (test.frames[0].line, test.frames[0].source) == (2, "return 1 // x")
    assert (test.assertion.line, test.assertion.calls) == (2, (("f(0)", "raised ZeroDivisionError"),))
    (test,) = sandbox.judge("def f(x):\n    return None", [case("y = f(1)\nz = y + 1\nassert z == 1")], PATIENT).tests
    assert (test.exception_type, test.assertion.line, test.assertion.source) == ("TypeError", 2, "z = y + 1")


@pytest.mark.parametrize(
    "code, tests",
    [
        ("def f(x): return x", "for v in (None, True, 1, 10**5000, 1.5, 'a\\ud800', b'x', (1,), [1], {1}, {1: (2,)}, 1j,"
         " frozenset([1]), range(3), ...):\n    assert f(v) == v and type(f(v)) is type(v)"),
        ("from collections import *\ndef f(x): return Counter(x), deque(x), OrderedDict(a=1), namedtuple('P', 'x y')(1, 2)",
         "from collections import Counter, deque\nc, d, o, p = f('aab')\n"
         "assert c == Counter('aab') and d == deque('aab') and o == {'a': 1} and p == (1, 2) and p.y == 2"),
        ("import datetime, decimal, fractions\n"
         "def f(): return datetime.date(2024, 1, 2), decimal.Decimal('1.10'), fractions.Fraction(1, 3)",
         "from decimal import Decimal\nfrom fractions import Fraction\nimport datetime\n"
         "assert f() == (datetime.date(2024, 1, 2), Decimal('1.10'), Fraction(1, 3))"),
        ("def f(m):\n    m[0][0] = 9\n    m.append([3])", "m = [[1], [2]]\nrow = m[0]\nf(m)\nassert m == [[9], [2], [3]]\n"
         "assert row == [9]"),
        ("def f(x): return x", "x = [1]\nassert f(x) is x"),
        ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]\nassert next(f(1)) == 0"),
        ("def f(g): return lambda x: g(g(x))", "assert f(lambda x: x + 1)(1) == 3\nassert f(str.upper)('a') == 'A'"),
        ("def f(it): return sum(it)", "assert f(iter([1, 2])) == 3\nassert f(x for x in (3, 4)) == 7"),
        ("class V:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
         "    def __add__(self, o): return V(self.x + o.x)\n    def __mul__(self, n): return V(self.x * n)\n"
         "    def __repr__(self): return f'V({self.x})'\n    def __hash__(self): return hash(self.x)",
         "from solution import V\nassert V(1) + V(2) == V(3)\nassert V(2) * 3 == V(6)\nassert repr(V(1)) == 'V(1)'\n"
         "assert V(1) != V(2) and V(1).x == 1 and isinstance(V(1), V)\nassert len({V(1), V(1)}) == 1\n"
         "assert type(V(1)) is V"),
        ("class E(Exception):\n    def __init__(self, code, more):\n        super().__init__(f'code {code}')\n"
         "        self.code = code\ndef f(): raise E(3, 4)",
         "import pytest\nfrom solution import E, f\ndef test():\n    with pytest.raises(E, match='code 3') as info:\n"
         "        f()\n    assert info.value.code == 3 and isinstance(info.value, E)"),
        ("import json\ndef f(x): return json.loads(x)",
         "import json, pytest\ndef test():\n    with pytest.raises(json.JSONDecodeError):\n        f('{')"),
        ("import enum\nclass C(enum.Enum):\n    A = 1\ndef f(): return C.A",
         "from solution import C, f\nassert f() == C.A and f() is C.A and C.A.value == 1 and C['A'].name == 'A'"),
        ("def f(node):\n    n = 0\n    while node: n, node = n + node.value, node.next\n    return n",
         "class Node:\n    def __init__(self, value, next=None): self.value, self.next = value, next\n"
         "assert f(Node(1, Node(2))) == 3"),
        ("def f(): print('hello')", "def test(capsys):\n    f()\n    assert capsys.readouterr().out == 'hello\\n'"),
        ("def f(): print('hello')", "import io\nfrom contextlib import redirect_stdout\nf()\nout = io.StringIO()\n"
         "with redirect_stdout(out):\n    f()\nassert out.getvalue() == 'hello\\n'"),
        ("async def f(x): return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2\n"
         "async def test():\n    assert await f(2) == 3"),
        ("class A:\n    def __enter__(self): return self\n    def __exit__(self, *a): self.done = True",
         "from solution import A\na = A()\nwith a as b:\n    pass\nassert a.done is True"),
        ("import numpy as np\ndef f(n): return np.arange(n) / 2", "import numpy as np\nassert np.allclose(f(3), [0, .5, 1])\n"
         "assert f(2).shape == (2,)"),
        ("class T:\n    def f(self): return 1", "import unittest\nfrom solution import T\nclass X(unittest.TestCase):\n"
         "    def setUp(self): self.t = T()\n    def test_it(self):\n        self.assertEqual(self.t.f(), 1)\n"
         "        with self.assertRaises(AttributeError): self.t.g()"),
        ("x = 3\ndef f(): return x", "import solution\nassert solution.f() == solution.x == 3"),
        ("def count(s): return 7", "assert count('x') == 7"),
        ("def f(x):\n    raise TypeError(f'{x!r} is bad')", "try:\n    f('a')\n    assert False\nexcept TypeError as e:\n"
         "    assert str(e) == \"'a' is bad\""),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_tests_may_do(sandbox, code, tests):
    judgement = sandbox.judge(code, [case(tests, "count")], PATIENT)
    assert judgement.passed, judgement
    assert judgement.tests[0].assertions_passed == judgement.tests[0].assertions - ("assert False" in tests)


@pytest.mark.parametrize(
    "tests, words",
    [
        ("assert f(", "not valid Python"),
        ("f(1)", "asserts nothing"),
        ("def test(tmp_path): assert f(tmp_path)", "tmp_path"),
        ("from unittest.mock import patch\n@patch('solution.x')\ndef test(x): assert f(x)", "mock.patch"),
    ],
)
def test_tests_that_judge_nothing_are_refused(sandbox, tests, words):
    with pytest.raises(BadTests, match=words):
        sandbox.judge("def f(x): return x", [case(tests)])


def test_what_cannot_be_handed_over_is_not_the_programs_fault(sandbox):
    judgement = sandbox.judge("def f(x): return x", [case("import io\nassert f(io.BytesIO()) == 1")], PATIENT)
    assert judgement.verdict is Verdict.SANDBOX_ERROR and "BytesIO" in judgement.message


def test_every_test_has_a_program_of_its_own(sandbox):
    code = "seen = []\ndef f():\n    seen.append(1)\n    return len(seen)"
    judgement = sandbox.judge(code, [case("assert f() == 1\nassert f() == 2"), case("assert f() == 1")], PATIENT)
    assert judgement.passed and len(judgement.tests) == 2


def test_one_waiting_child_is_enough_to_begin_with():
    with Sandbox(workers=1, pool=1) as one:
        jobs = [
            Job("def f(x): return x", [case("assert f(1) == 1")], PATIENT),
            Job("print(2)", [TestCase("", "2")]),
        ] * 3
        assert all(judgement.passed for judgement in one.judge_many(jobs))


def test_long_arguments_and_results_pass_both_ways(sandbox):
    tests = "big = 'x' * 3_000_000\nassert f(big) == big\nassert f([big[:1000]] * 1000)[999] == big[:1000]"
    assert sandbox.judge("def f(x): return x", [case(tests)], PATIENT).passed


def test_the_prelude_is_not_there(sandbox):
    """The published harnesses have none: a program that forgets an import fails there, too."""
    judgement = sandbox.judge("def f(x): return Counter(x)", [case("assert f('a') == {'a': 1}")], PATIENT)
    assert judgement.tests[0].message.startswith("name 'Counter' is not defined")


def test_a_program_cannot_word_the_failure(sandbox):
    """What it says of its own exception is a type, a text and frames, and nothing else."""
    code = (
        "import sandbox.failure as failure\nsaid = failure.describe\n"
        "def describe(*a): return said(*a) | {'asserted': True, 'source': 'FAKE', 'left': 'FAKE', 'right': 'FAKE', "
        "'calls': [['FAKE', 'FAKE']]}\nfailure.describe = describe\ndef f(x): raise ValueError('no')"
    )
    (test,) = sandbox.judge(code, [case("y = f(1)\nassert y == 1")], PATIENT).tests
    assert (test.verdict, test.exception_type, test.assertion.source) == (
        Verdict.RUNTIME_ERROR,
        "ValueError",
        "y = f(1)",
    )
    assert "FAKE" not in str(test.assertion)


@pytest.mark.parametrize("side", ["child", "examiner"])
def test_a_process_killed_from_outside_is_forgiven_on_either_side(sandbox, side):
    code = "import time\ndef f(x):\n    time.sleep(0.3)\n    return x"
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(sandbox.judge, code, [case("assert f(1) == 1")], PATIENT)
        while not (runs := list(sandbox._engine._runs.values())):
            time.sleep(0.005)
        os.kill(getattr(runs[0], side).process_id, signal.SIGKILL)
        assert future.result().passed
    assert not sandbox._engine._runs and not sandbox._engine._partners
