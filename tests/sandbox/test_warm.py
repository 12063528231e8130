"""Programs that import numpy: from a second fork server, which changes how long they take and nothing else."""

from __future__ import annotations

import os
import signal
import time

import pytest

from sandbox import Job, Limits, Sandbox, TestCase, Verdict
from sandbox.task import Task

pytest.importorskip("numpy")

SUM = "import numpy as np\nprint(int(np.arange(int(input())).sum()))"
COLD = SUM.replace("import numpy as np", "np = __import__('numpy')")  # which nobody takes for an import
TESTS = [TestCase("4", "6"), TestCase("5", "10")]
PATIENT = Limits(cpu_time_s=20, wall_time_s=60)


def _wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def warm():
    with Sandbox(workers=2, pool=4) as sandbox:
        assert sandbox.judge(SUM, TESTS, PATIENT).passed
        _wait_until(lambda: sandbox._engine._warm.is_ready)
        yield sandbox


def _printed(sandbox: Sandbox, code: str) -> str:
    (test,) = sandbox.judge(code, [TestCase("", "?")], PATIENT).tests
    assert test.exception_type is None, test
    return (test.stdout or "").strip()


def test_no_program_waits_for_the_second_server_and_it_saves_the_import():
    with Sandbox(workers=1, pool=2) as sandbox:
        engine = sandbox._engine
        assert sandbox.judge("print(1)", [TestCase("", "1")], PATIENT).passed
        assert engine._warm.server is None  # nobody has asked for it
        first = sandbox.judge(SUM, TESTS[:1], PATIENT)
        assert first.passed and not engine._warm.is_ready
        _wait_until(lambda: engine._warm.is_ready)
        second = sandbox.judge(SUM, TESTS[:1], PATIENT)
        assert second.passed and second.tests[0].cpu_time_s < first.tests[0].cpu_time_s / 4


def test_only_programs_that_import_it_get_it(warm):
    loaded = "import sys\nprint('numpy' in sys.modules, 'numpy' in dir())"
    assert _printed(warm, loaded) == "False False"
    assert _printed(warm, f"if 0:\n    import numpy\n{loaded}") == "True False"
    assert _printed(warm, f"# import numpy\n{loaded}") == "False False"


@pytest.mark.parametrize(
    ("code", "files", "expected"),
    [
        ("import numpy", {}, True),
        ("import numpy as np", {}, True),
        ("def f():\n    from numpy.linalg import norm", {}, True),
        ("import sys, math as m, numpy", {}, True),
        ("import scipy.stats", {}, True),
        ("import kit", {"kit.py": "import numpy"}, True),
        ("import numpy", {"numpy.py": "x = 1"}, False),
        ("import numpyro", {}, False),
        ("import sys  # , numpy", {}, False),
        ("print('numpy')", {}, False),
    ],
)
def test_what_counts_as_an_import(code, files, expected):
    assert Task(Job(code, [TestCase("", "")], files=files)).numpy is expected


def test_assertion_tests_that_use_it(warm):
    tests = [TestCase("import numpy as np\nassert np.allclose(f(np.arange(3)), [0, 2, 4])", "", "assertions")]
    assert warm.judge("def f(a): return 2 * a", tests, PATIENT).passed
    assert warm.judge("def f(a): return a", tests, PATIENT).verdict is Verdict.WRONG_ANSWER


def test_programs_of_both_kinds_in_one_batch(warm):
    plain = Job("n = int(input())\nprint(n * (n - 1) // 2)", TESTS, PATIENT)
    jobs = [plain, Job(SUM, TESTS, PATIENT)] * 15
    assert all(judgement.passed for judgement in warm.judge_many(jobs))


def test_a_file_of_the_programs_own_goes_before_the_library(warm):
    files = {"numpy.py": "def arange(n): return 'mine'"}
    assert warm.judge("import numpy\nprint(numpy.arange(1))", [TestCase("", "mine")], PATIENT, files).passed


def test_random_numbers_differ_from_child_to_child(warm):
    code = (
        "import random\nimport numpy as np\nprint(random.random(), np.random.rand(), np.random.default_rng().random())"
    )
    printed = [_printed(warm, code).split() for _ in range(3)]
    assert len({number for numbers in printed for number in numbers}) == 9


def test_children_of_the_two_servers_have_different_users(warm):
    if warm.report["users"] == 1:
        pytest.skip("all children have one user here")
    parities = {}
    for prefix in ("", "import numpy\n"):
        numbers = {int(_printed(warm, prefix + "import os\nprint(os.getuid())")) for _ in range(4)}
        assert len(numbers) == 4
        parities[prefix] = {number % 2 for number in numbers}
    assert len(parities[""]) == len(parities["import numpy\n"]) == 1 and parities[""] != parities["import numpy\n"]


def test_nothing_of_the_second_servers_start_is_in_the_environment(warm):
    code = "import os\nprint(sorted(os.environ))"
    assert "LD_BIND_NOW" not in _printed(warm, code)
    assert _printed(warm, "import numpy\n" + code) == _printed(warm, code)


@pytest.mark.parametrize(("megabytes", "verdict"), [(150, Verdict.MEMORY_LIMIT), (400, Verdict.ACCEPTED)])
def test_numpys_memory_is_the_programs_wherever_it_was_loaded(warm, megabytes, verdict):
    limits = Limits(cpu_time_s=20, wall_time_s=60, memory_mb=megabytes)
    for code in (SUM, COLD):
        judgement = warm.judge(code + "\nx = np.ones(12 << 20)", [TestCase("4", "6")], limits)
        assert judgement.verdict is verdict


def test_a_second_server_that_dies_is_replaced_and_its_programs_judged_again():
    with Sandbox(workers=2, pool=4) as sandbox:
        supply = sandbox._engine._warm
        assert sandbox.judge(SUM, TESTS, PATIENT).passed
        _wait_until(lambda: supply.is_ready)
        for _ in range(2):
            future = sandbox._engine.submit(
                Job("import numpy\nimport time\ntime.sleep(0.5)\nprint(1)", [TestCase("", "1")], PATIENT)
            )
            _wait_until(lambda: any(supply.owns(slot) for slot in list(sandbox._engine._runs)))
            os.kill(supply.server.server_id, signal.SIGKILL)
            assert future.result(60).passed
            assert sandbox.judge("print(1)", [TestCase("", "1")], PATIENT).passed
            _wait_until(lambda: supply.is_ready)


def test_where_there_is_no_numpy_nothing_changes():
    with Sandbox(workers=1, pool=2, packages=()) as sandbox:
        for _ in range(2):
            (test,) = sandbox.judge("import numpy", [TestCase("", "")], PATIENT).tests
            assert test.exception_type in ("ModuleNotFoundError", "ImportError", "PermissionError")
            _wait_until(lambda: sandbox._engine._warm.hopeless)
        assert sandbox._engine._warm.server is None
        assert sandbox.judge("print(1)", [TestCase("", "1")], PATIENT).passed
