"""What goes in and what comes out: odd programs, odd tests, structured results, limits, files."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from sandbox import (
    BadTests,
    IsolationUnavailable,
    Job,
    Limits,
    Sandbox,
    TestCase,
    Verdict,
    extract_code,
    isolation,
    landlock,
)
from sandbox.task import Task, result_of_report
from sandbox.wire import Report

ONE = [TestCase("1", "2")]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as one:
        yield one


@pytest.mark.parametrize(
    "code, verdict",
    [
        (None, Verdict.NO_CODE),
        ("", Verdict.NO_CODE),
        (" \n\t", Verdict.NO_CODE),
        ("print('\0')", Verdict.COMPILE_ERROR),
        ("print('\udcff')", Verdict.COMPILE_ERROR),
        ("print(" * 500, Verdict.COMPILE_ERROR),
        ("x = " + "(" * 100_000, Verdict.COMPILE_ERROR),
        ("return 1", Verdict.COMPILE_ERROR),
        ("x = '" + "a" * 10_000_000 + "'\nprint(2)", Verdict.ACCEPTED),
        ("#" * 10_000_000, Verdict.WRONG_ANSWER),
        ("\ufeffprint(2)", Verdict.ACCEPTED),
        ("print(2)\r\n", Verdict.ACCEPTED),
        ("raise KeyboardInterrupt", Verdict.RUNTIME_ERROR),
        ("import sys\nsys.exit('no')", Verdict.WRONG_ANSWER),
    ],
    ids=lambda value: None if isinstance(value, Verdict) else repr(value)[:25],
)
def test_odd_programs(sandbox, code, verdict):
    assert sandbox.judge(code, ONE).verdict is verdict


@pytest.mark.parametrize(
    "tests, words",
    [
        ([], "no tests"),
        ([TestCase("[1", "1", "functional", "f")], "input is not JSON"),
        ([TestCase("1", "{", "functional", "f")], "output is not JSON"),
        ([TestCase("1", "1", "functional")], "fn_name"),
        ([TestCase("1", "1", "interactive")], "testtype"),
        ([TestCase(1, "1")], "text"),
    ],
)
def test_odd_tests_are_a_clear_error(sandbox, tests, words):
    with pytest.raises(BadTests, match=words):
        sandbox.judge("print(1)", tests)


def test_structured_runtime_error_with_pythons_own_suggestion(sandbox):
    code = "import kit\n\ndef solve(n):\n    return kit.valeu(n)\n\nprint(solve(int(input())))"
    judgement = sandbox.judge(code, ONE, files={"kit.py": "def value(n):\n    return n + 1\n"})
    (test,) = judgement.tests
    assert judgement.verdict is Verdict.RUNTIME_ERROR
    assert test.exception_type == "AttributeError"
    assert test.message == "module 'kit' has no attribute 'valeu'. Did you mean: 'value'?"
    assert [(f.line, f.function, f.source) for f in test.frames] == [
        (6, "<module>", "print(solve(int(input())))"),
        (4, "solve", "return kit.valeu(n)"),
    ]
    assert (test.input, test.expected, test.stdout) == ("1", "2", "")
    assert test.cpu_time_s > 0 and test.peak_memory_mb > 1
    assert pickle.loads(pickle.dumps(judgement)) == judgement


@pytest.mark.parametrize("name", ["kit", "kit.py"])
def test_files_are_modules_that_the_program_may_import(sandbox, name):
    files = {name: "def value(n):\n    return n + 1\n"}
    assert sandbox.judge("from kit import value\nprint(value(int(input())))", ONE * 3, files=files).passed
    assert sandbox.judge(
        "import kit\ndef f(n): return kit.value(n)", [TestCase("1", "2", "functional", "f")], files=files
    ).passed


def test_frames_in_files_are_shown(sandbox):
    judgement = sandbox.judge("import kit\nkit.f()", ONE, files={"kit": "def f():\n    return {}[5]\n"})
    assert [(f.file, f.line, f.source) for f in judgement.tests[0].frames] == [
        ("solution.py", 2, "kit.f()"),
        ("kit.py", 2, "return {}[5]"),
    ]


def test_name_error_suggestion_and_line_numbers_in_spite_of_the_prelude(sandbox):
    (test,) = sandbox.judge("from __future__ import annotations\nvalue = 1\nprint(valeu)", ONE).tests
    assert test.message == "name 'valeu' is not defined. Did you mean: 'value'?"
    assert test.frames[0].line == 3


def test_compile_error_says_where(sandbox):
    judgement = sandbox.judge("x = 1\nprint(x", ONE)
    (test,) = judgement.tests
    assert test.exception_type == "SyntaxError" and "never closed" in test.message
    assert test.frames[0].line == 2 and "print(x" in test.frames[0].source


def test_stop_policies(sandbox):
    tests = [TestCase("1", "1"), TestCase("2", "0"), TestCase("3", "3"), TestCase("4", "0")]
    assert len(sandbox.judge("print(input())", tests).tests) == 2
    judgement = sandbox.judge("print(input())", tests, stop="all")
    assert [test.passed for test in judgement.tests] == [True, False, True, False]
    assert judgement.verdict is Verdict.WRONG_ANSWER and judgement.total_tests == 4
    code = "n = int(input())\nwhile n == 2: pass\nprint(n)"
    judgement = sandbox.judge(code, tests, Limits(cpu_time_s=0.5), stop="all")
    assert [test.verdict for test in judgement.tests] == [Verdict.ACCEPTED, Verdict.TIME_LIMIT]


def test_cpu_time_is_limited_not_the_time_a_busy_machine_takes(sandbox):
    loop = Job("while True: pass", ONE, Limits(cpu_time_s=0.5, wall_time_s=60))
    for judgement in sandbox.judge_many([loop] * 6):
        assert judgement.verdict is Verdict.TIME_LIMIT
        assert 0.45 <= judgement.tests[0].cpu_time_s <= 1.0


def test_memory_is_counted_beyond_the_interpreter(sandbox):
    limits = Limits(cpu_time_s=20, memory_mb=100)
    assert sandbox.judge("x = bytearray(80 << 20)\nprint(2)", ONE, limits).passed
    assert sandbox.judge("x = bytearray(120 << 20)\nprint(2)", ONE, limits).verdict is Verdict.MEMORY_LIMIT


def test_output_limit_is_exact(sandbox):
    limits = Limits(output_kb=1)
    assert sandbox.judge("print('a' * 1024, end='')", [TestCase("", "a" * 1024)], limits).passed
    assert (
        sandbox.judge("print('a' * 1025, end='')", [TestCase("", "a" * 1025)], limits).verdict is Verdict.OUTPUT_LIMIT
    )


def test_large_inputs_and_outputs(sandbox):
    text = "\n".join(str(n) for n in range(300_000))
    code = "import sys\nfor line in sys.stdin: print(line.strip())"
    assert sandbox.judge(code, [TestCase(text, text)] * 2).passed


def test_large_outputs_of_a_series_never_wait_for_the_judge(sandbox):
    """Each is many times what fits into the socket at once; a judge that is not told would look once a CPU limit."""
    tests = [TestCase(str(n), "x" * 1_000_000) for n in range(4)]
    judgement = sandbox.judge("print('x' * 1_000_000)", tests, Limits(cpu_time_s=30, wall_time_s=300))
    assert judgement.passed and max(test.wall_time_s for test in judgement.tests) < 30


@pytest.mark.parametrize(
    "code",
    [
        "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.detach())\nprint(2)",
        "class W:\n  def __init__(s, o): s.o = o\n  def write(s, t): s.o.write(t)\n  def flush(s): s.o.flush()\n"
        "import sys\nsys.stdout = W(sys.stdout)\nprint(2)",
        "assert sys.stdin.read() == '1' and (sys.stdin.name, sys.stdin.mode) == ('<stdin>', 'r')\nprint(2)",
    ],
)
def test_streams_are_those_of_a_script(sandbox, code):
    judgement = sandbox.judge(code, ONE * 2)
    assert judgement.passed, judgement


@pytest.mark.parametrize("code", ["print(ascii(sys.stdin.read()))", "print(ascii(open(0).read()))"])
def test_line_ends_and_bad_bytes_arrive_as_they_are(sandbox, code):
    expected = "'a\\r\\nb\\rc\\n\\udcff'" if "sys" in code else None
    text = "a\r\nb\rc\n\udcff"
    if expected is None:  # a file opened by the program has universal line ends and refuses bad bytes
        text, expected = "a\r\nb\rc", "'a\\nb\\nc'"
    judgement = sandbox.judge(code, [TestCase(text, expected)] * 3)
    assert judgement.passed, judgement


@pytest.mark.parametrize(
    "code, expected",
    [
        ("def f(a): return {1: 2}", '{"1": 2}'),
        ("def f(a): return [(1, 2)]", "[[1, 2]]"),
        ("def f(a): return 'True'", "true"),
        ("def f(a): return b'x'", '"x"'),
    ],
)
def test_types_stay_apart(sandbox, code, expected):
    assert sandbox.judge(code, [TestCase("1", expected, "functional", "f")]).verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    "code, expected",
    [
        ("def f(a): return True", "1"),
        ("def f(a): return Counter('a')", '{"a": 1}'),
        ("def f(a): return 10**9000", "1" + "0" * 9000),
        ("def f(a): return namedtuple('P', 'x y')(1, 2)", "[1, 2]"),
        ("def f(a): return '\\ud800'", '"\\ud800"'),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\ndef f(a): return P(a).x", "1"),
    ],
)
def test_equal_as_python_has_it(sandbox, code, expected):
    judgement = sandbox.judge(code, [TestCase("1", expected, "functional", "f")])
    assert judgement.passed, judgement


@pytest.mark.parametrize(
    "value, expected, equal",
    [
        ("__import__('fractions').Fraction(84, 2)", "42", True),
        ("__import__('fractions').Fraction(1, 2)", "0.5", True),
        ("__import__('fractions').Fraction(1, 3)", "0.3333333333333333", False),
        ("__import__('fractions').Fraction(1, 2)", "Infinity", False),
        ("__import__('decimal').Decimal('42.000')", "42", True),
        ("__import__('decimal').Decimal('0.1')", "0.1", False),
        ("complex(42, 0)", "42", True),
        ("complex(42, 1)", "42", False),
        ("1 << 20000", str(10**6), False),
        ("10 ** 5000", "1" + "0" * 5000, True),
        ("42.0", "42", True),
        ("10 ** 400", "1e308", False),
        ("{'b': [1.0], 'a': {'c': ()}}", '{"a": {"c": []}, "b": [1]}', False),
        ("{'b': [1.0], 'a': {'c': []}}", '{"a": {"c": []}, "b": [1]}', True),
        ("{'tuple': [1]}", '{"tuple": [1]}', True),
        ("(1,)", '{"tuple": [1]}', False),
        ("[{'int': '0x1'}]", "[1]", False),
        ("[None, 'x', [True]]", '[null, "x", [1]]', True),
        ("'42'", "42", False),
        ("[1, 2]", "[1, 2, 3]", False),
    ],
)
def test_equality_is_pythons_without_building_what_was_returned(sandbox, value, expected, equal):
    judgement = sandbox.judge(f"def f(a): return {value}", [TestCase("1", expected, "functional", "f")])
    assert judgement.verdict is (Verdict.ACCEPTED if equal else Verdict.WRONG_ANSWER), judgement


@pytest.mark.parametrize(
    "value",
    ["[1] * 200_000", "'x' * 200_000", "1 << 2_000_000", "x", "y", "{n: n for n in range(100_000)}"],
)
def test_plain_data_that_is_too_large_gets_its_own_verdict(sandbox, value):
    code = f"x = 1\nfor _ in range(500): x = [x]\ny = [1]\nfor _ in range(40): y = [y, y]\ndef f(a): return {value}"
    limits = Limits(cpu_time_s=20, output_kb=100)
    judgement = sandbox.judge(code, [TestCase("1", "42", "functional", "f")], limits)
    assert judgement.verdict is Verdict.OUTPUT_LIMIT and "returned value" in judgement.tests[0].message, judgement


@pytest.mark.parametrize(
    "encoded",
    [
        b'{"dict": [["a", 1], ["a", 1]]}',
        b'{"dict": 7}',
        b'{"dict": [[["a"], 1], ["b", 2]]}',
        b'{"Fraction": ["0x" , 7]}',
        b'{"Decimal": 1}',
        b'{"Decimal": "1e99999999999999999999999"}',
        b'{"complex": ["1", []]}',
        b'{"int": []}',
        b'{"a": 1, "b": 2}',
        b"{}",
        b'["' + b"]" * 5000 + b'", ' + b"[" * 5000,
        b"[" * 200_000,
        b'{"tuple":' * 100_000,
        b"9" * 100_000,
        b"\xff",
    ],
    ids=lambda encoded: encoded[:30].decode("latin-1"),
)
@pytest.mark.parametrize("expected", ["42", '{"a": 1, "b": 2}', "[1]"])
def test_forged_values_are_wrong_answers_whatever_the_recursion_limit(encoded, expected):
    task = Task(Job("x", [TestCase("1", expected, "functional", "f")]))
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        result = result_of_report(task, Report({}, b"", value=encoded), 0.0, 0.0)
    finally:
        sys.setrecursionlimit(usual)
    assert result.verdict is Verdict.WRONG_ANSWER


@pytest.mark.parametrize(
    "code",
    [
        "import atexit\natexit.register(print, 2)",
        "import threading\nthreading.Thread(target=print, args=(2,)).start()",
        "out = open(1, 'w')\nout.write('2')",
        "import io\nout = io.TextIOWrapper(open(1, 'wb'))\nout.write('2')",
        "import builtins\nbuiltins.input = lambda: '1'\nprint(int(input()) + 1)",
        "import sys\nsys.stdout = __import__('io').StringIO()\nsys.__stdout__.write('2')",
        "print(int(open('/dev/stdin').read()) + 1)",
        "import asyncio\nasync def main(): print(2)\nasyncio.run(main())",
        "import random, array, fractions, decimal, string, queue\nprint(2)",
        "import sys\nclass A:\n  def __del__(s): print(2)\na = A()",
    ],
)
def test_a_real_script_to_its_very_end(sandbox, code):
    judgement = sandbox.judge(code, ONE)
    assert judgement.passed, judgement


def test_extraction_takes_the_last_block():
    assert extract_code("a\n```python\nx\n```\nb\n```\ny\nz\n```\n") == "y\nz"
    assert extract_code("one fence ```") is None
    assert extract_code("```\nx = 1") is None
    assert extract_code("``````\nx\n```") == "x"


def test_isolation_is_never_silently_absent():
    with pytest.raises(ValueError, match="isolation"):
        Sandbox(isolation="strong")
    script = (
        "import sandbox.linux as l, sandbox.seccomp as s\nl.MACHINE = 'pdp11'\nfrom sandbox import isolation\n"
        "f = isolation.find('auto', [])\nprint(f.level, isolation.why_not(f, 'auto'))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("none not even seccomp is available")
    assert issubclass(IsolationUnavailable, Exception)


def test_auto_refuses_a_level_that_leaks(monkeypatch):
    """At the level seccomp a program reads what the user can read; that has to be asked for."""

    def missing(*_):
        raise OSError("not here")

    monkeypatch.setattr(landlock, "abi", missing)
    monkeypatch.setattr(isolation, "_probe_namespaces", missing)
    found = isolation.find("auto", [])
    assert found.level == "seccomp"
    assert "isolation='seccomp' accepts that" in isolation.why_not(found, "auto")
    assert isolation.why_not(found, "seccomp") is None
