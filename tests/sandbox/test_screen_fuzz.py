"""Programs made at random: what passes the screen leaves nothing behind and never sees which run it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.fuzz_programs import Programs

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")
ROOT = Path(__file__).parents[2]
INPUTS = ["1\n", "1\n", "2\n", "1\n"]


class Driver:
    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("fuzz_driver.py")), str(ROOT)]
        environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def compare(self, code: str, unscreened: bool = False) -> dict | None:
        request = {"code": code, "inputs": INPUTS, "unscreened": unscreened}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def driver():
    one = Driver()
    yield one
    one.close()


def fuzz(driver: Driver, seed: int, count: int) -> None:
    programs, accepted = Programs(seed), 0
    for number in range(count):
        code = programs.make()
        found = driver.compare(code)
        if found is None:
            continue
        accepted += 1
        where = f"seed {seed}, program {number}:\n{code}"
        assert not found["leaks"] and not found["noticed"], f"{found['leaks']} after {where}"
        assert found["series"] == found["fresh"], f"{found} in {where}"
    print(f"seed {seed}: {accepted} of {count} programs passed the screen")
    assert accepted > count / 2


@pytest.mark.parametrize("seed", range(1))
def test_accepted_programs_run_as_in_fresh_processes(driver, seed):
    fuzz(driver, seed, 60)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 106))
def test_many_accepted_programs_run_as_in_fresh_processes(driver, seed):
    fuzz(driver, seed, 1000)


def test_how_deep_a_program_is_called_is_not_told(driver):
    found = driver.compare("setrecursionlimit(3)")
    messages = {header["m"] for header, _ in found["series"] + found["fresh"]}
    assert messages == {"cannot set the recursion limit to 3: the limit is too low"}


LEAVING = {
    "an_attribute_of_a_module": "math.zz = 1",
    "an_attribute_of_a_class": "Counter.zz = 1",
    "an_attribute_of_a_function": "deepcopy.zz = 1",
    "an_entry_in_a_table": "copy.dispatch_table[int] = 1",
    "a_default": "functools.wraps.__defaults__ = ()",
    "a_seed": "random.seed(5)",
    "a_cached_pattern": "re.compile('a+b')",
    "an_environment_variable": "import os\nos.environ['Z'] = '1'",
    "a_trace_function": "sys.setprofile(lambda *a: None)",
    "a_loaded_module": "import colorsys",
}


@pytest.mark.parametrize("name", LEAVING)
def test_the_detector_sees_what_is_left(driver, name):
    """Otherwise the tests above would show nothing."""
    assert driver.compare(LEAVING[name], unscreened=True)["leaks"]


TRACES = ["math.zz = 1", "import builtins\nbuiltins.zz = 1", "import threading", "sys.settrace(lambda *a: None)"]


@pytest.mark.parametrize("code", TRACES)
def test_the_runner_notices_a_trace_in_the_prelude(driver, code):
    """Defence in depth: it would end the child."""
    assert driver.compare(code, unscreened=True)["noticed"]
    assert not driver.compare("x = [1]\nx.append(Counter(x))\nprint(x)", unscreened=True)["noticed"]


SEEING = {
    "an_address_by_id": "print(id([]))",
    "an_address_in_a_text": "print([lambda: 0])",
    "an_address_in_an_order": "print([v == v for v in {*range(0, 1024, 9), *map(float, ['nan'] * 60)}])",
    "an_address_in_an_error": "print(object())",
}


@pytest.mark.parametrize("name", SEEING)
def test_the_comparison_sees_addresses(driver, name):
    code = "x = [[] for _ in range(99)]\n" + SEEING[name]
    found = driver.compare(code, unscreened=True)
    assert found["series"] != found["fresh"]
