"""Of what a part's process wrote, the line that says why it died."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdpo.supervision.logs import fatal_line, last_words, refers_to_log
from sdpo.supervision.part import Part
from sdpo.supervision.watch import _why

RAISED = """
try:
    int("x")
except ValueError as error:
    raise RuntimeError("no {:>3}") from error
"""
# As vLLM's core logs an exception, and then Python's multiprocessing, and what its client raises.
CORE = """\
INFO 11-27 10:00:00 [core.py:90] Error handling is on: all is well
(EngineCore pid=71) ERROR 11-27 10:00:01 [core.py:900] EngineCore failed to start.
(EngineCore pid=71) ERROR 11-27 10:00:01 [core.py:900] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-27 10:00:01 [core.py:900]   File "core.py", line 9, in load
(EngineCore pid=71) ERROR 11-27 10:00:01 [core.py:900]     raise ValueError("Error: x")
(EngineCore pid=71) ERROR 11-27 10:00:01 [core.py:900] ValueError: Following weights were not initialized: {'a.b'}
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def crashed(tmp_path, program: str) -> str:
    log = tmp_path / "worker-1.err"
    with log.open("w") as file:
        done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", program], stderr=file, stdout=file)
    assert done.returncode != 0
    return fatal_line(log)


def test_the_line_of_a_process_that_really_died(tmp_path):
    assert crashed(tmp_path, RAISED) == "RuntimeError: no {:>3}"
    assert crashed(tmp_path, "import ctypes; ctypes.string_at(0)") == "Fatal Python error: Segmentation fault"
    assert crashed(tmp_path, "raise SystemExit(3)") == ""


def test_an_error_that_refers_to_the_log_is_not_its_own_cause(tmp_path):
    log = tmp_path / "worker-1.out"
    log.write_text(CORE)
    assert refers_to_log(CORE.splitlines()[-1]) and not refers_to_log("ValueError: no such tensor")
    assert fatal_line(log) == "ValueError: Following weights were not initialized: {'a.b'}"
    assert last_words((str(log), str(tmp_path / "none.err"))) == (fatal_line(log), str(log))
    assert fatal_line(tmp_path) == fatal_line(tmp_path / "none") == fatal_line("pipe:[123]") == ""


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("was killed by SIGSEGV", ": ValueError: Following weights were not initialized: {'a.b'}"),
        ("ended with exit status 1", ": ValueError: Following weights were not initialized: {'a.b'}"),
        ("was killed by SIGKILL", ""),  # from outside: no line of its own killed it
        ("is stopped (SIGSTOP, or a debugger)", ""),
    ],
)
def test_who_died_by_itself_says_why(tmp_path, trouble, told):
    log = tmp_path / "worker-1.out"
    log.write_text(CORE)
    part = Part("rollout engine 0", {})
    part.runs_in("node", {1: "its actor"}, complete=False, logs=(str(log), str(tmp_path / "worker-1.err")))
    part.runs_in("node", {1: "its actor"}, complete=True)
    assert _why(part, trouble) == told
