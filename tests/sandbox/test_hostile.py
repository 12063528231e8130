"""No hostile program passes by cheating, leaves a trace or disturbs its neighbours."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox import IsolationUnavailable, Job, Limits, Sandbox, SandboxError, TestCase, failure, wire
from sandbox.run import Run
from sandbox.task import Task

HERE = Path(__file__).parent
_PROGRAMS = runpy.run_path(str(HERE / "hostile_programs.py"))
ATTEMPT, REFUSED, OUTWARD, READING = (_PROGRAMS[name] for name in ("ATTEMPT", "REFUSED", "OUTWARD", "READING"))
EXHAUSTING, DISHONEST_VALUES = _PROGRAMS["EXHAUSTING"], _PROGRAMS["DISHONEST_VALUES"]
LIMITS = Limits(cpu_time_s=0.5, wall_time_s=3.0, memory_mb=256, output_kb=256)
PATIENT = Limits(cpu_time_s=10, wall_time_s=60, memory_mb=256, output_kb=256)  # for what must end before its time
# What a program can read that your user can read: the level seccomp says so, and "auto" never chooses it.
READABLE_AT_SECCOMP = set(READING) | {
    name for name in REFUSED if name.startswith(("read_a_file", "read_its_own", "read_proc", "list_"))
}


def _available(level: str) -> bool:
    try:
        Sandbox(workers=1, isolation=level, pool=1).close()
        return True
    except IsolationUnavailable:
        return False


@pytest.fixture(
    scope="module",
    params=[
        ("namespaces", "self"),
        ("landlock", "self"),
        ("namespaces", "numpy"),
        pytest.param(("landlock", "numpy"), marks=pytest.mark.slow),
        pytest.param(("seccomp", "self"), marks=pytest.mark.slow),
        pytest.param(("namespaces", "nobody"), marks=pytest.mark.slow),
        pytest.param(("landlock", "nobody"), marks=pytest.mark.slow),
        pytest.param(("seccomp", "nobody"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def judged(request) -> dict:
    """All hostile programs at once, an honest one after each; as this user, as one without rights, and with numpy."""
    level, user = request.param
    if user == "nobody" and os.geteuid() != 0:
        pytest.skip("the tests run without root's rights anyway")
    if not _available(level):
        pytest.skip(f"{level} is not offered here")
    if user == "numpy":
        pytest.importorskip("numpy")
    command = [sys.executable, "-B", str(HERE / "attack.py"), level, *([user] if user != "self" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if user == "nobody" and done.returncode != 0:
        pytest.skip(f"cannot run as another user: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["level"] == level and (user != "nobody" or told["user"] != 0)
    return told


@pytest.mark.parametrize("name", [*REFUSED, *OUTWARD, *READING])
def test_attack_is_refused(judged, name):
    if judged["level"] == "seccomp" and name in READABLE_AT_SECCOMP:
        pytest.skip("not held at this level")
    told = judged["programs"][name]
    assert told["verdict"] not in ("accepted", "sandbox error") and "STOLEN" not in told["stdout"], told


@pytest.mark.parametrize("name", EXHAUSTING)
def test_exhaustion_gets_its_verdict(judged, name):
    assert judged["programs"][name]["verdict"] in EXHAUSTING[name][1], judged["programs"][name]


@pytest.mark.parametrize("name", DISHONEST_VALUES)
def test_value_cannot_take_part_in_the_comparison(judged, name):
    told = judged["programs"][name]
    assert told["verdict"] not in ("accepted", "sandbox error"), told


def test_neighbours_are_not_disturbed(judged):
    assert judged["honest"] == ["accepted"]


def test_nothing_outside_was_touched(judged):
    """A process, a socket and a file of the same user, and the judge's own place among the cores."""
    assert judged["outside"] == {
        "victim": None, "scheduling unchanged": True, "received": [], "secret": "a secret", "traces": []
    }  # fmt: skip


def test_the_attacks_work_where_nothing_protects():
    """Otherwise the tests above would show nothing."""
    names = ["read_a_file", "read_its_own_proc_environ", "list_the_root_directory", "fork", "open_a_unix_socket"]
    with Sandbox(workers=2, isolation="none") as sandbox:
        jobs = [Job(ATTEMPT + REFUSED[name], [TestCase("", "STOLEN")], LIMITS, stop="all") for name in names]
        judgements = sandbox.judge_many(jobs)
    stolen = [name for name, j in zip(names, judgements, strict=True) if "STOLEN" in (j.tests[0].stdout or "")]
    assert stolen == names


FORGED_SERIES = """
import os, struct
for number in (1, 2, 3):
    header = b'{"c": 0.001, "alone": false}'
    output = b"%d" % number
    for fd in range(3, 64):
        try:
            os.write(fd, struct.pack("!IIIddd", len(header), len(output), 0, 0, 0, 0) + header + output)
        except OSError:
            pass
"""


def test_reports_cannot_be_forged_for_tests_to_come():
    """The same input thrice, and answers that only a program could give which runs on from test to test."""
    with Sandbox(workers=1) as sandbox:
        judgement = sandbox.judge(FORGED_SERIES, [TestCase("", str(number)) for number in (1, 2, 3)], PATIENT)
    assert [test.passed for test in judgement.tests] == [True, False]


def test_a_forked_process_is_told_to_make_its_own_sandbox():
    with Sandbox(workers=1) as sandbox:
        sandbox._engine._process += 1  # what os.getpid() says in a forked process
        with pytest.raises(SandboxError, match="create one of its own"):
            sandbox.judge("print(2)", [TestCase("1", "2")])


@pytest.mark.parametrize("clock", ["nan", "inf", "-inf", "-1e300", "1e300"])
def test_a_clock_that_lies_is_replaced_by_the_judges(clock):
    """In a series, where the child's clocks are asked for: a program past the screen could have replaced them."""
    tests = [TestCase("", "")] * 3
    with Sandbox(workers=1, pool=1) as sandbox:
        while not sandbox.idle:
            time.sleep(0.01)
        run = Run(sandbox._engine._plain.idle[0], Task(Job("x", tests)), tests)
        before, cpu_before = run.began, run.cpu_began
        run.look()
        cpu_s, clock_s = run.clocks(wire.Report({}, b"", 0, 0.0, float(clock), float(clock)))
        assert cpu_before <= cpu_s <= cpu_before + 1 and before <= clock_s <= time.monotonic()
        run.begin_test((cpu_s, clock_s))
        assert before <= run.next_check <= time.monotonic() + 60


@pytest.mark.parametrize("sizes", [(1 << 20, 0), (24 << 20, 0), (1, 1 << 24)])
def test_a_report_is_refused_by_its_sizes_alone(sizes):
    """A header has a small limit of its own, whatever the tests are."""
    reader = wire.ReportReader(4 << 20)
    with pytest.raises(ValueError, match="larger"):
        reader.feed(wire._REPORT.pack(*sizes, 0, 0.0, 0.0, 0.0))


def test_the_longest_honest_header_is_within_its_limit():
    name = "\U0001d465" * 300
    source = "\n".join(["def " + name + "(n):", " " * 4 + "\U0001f600" * 400] * 2)
    frames = [failure._frame(2, name, name, {name: source.split("\n")})] * failure.MAX_FRAMES
    described = {"s": "exception", "e": name[: failure.MAX_NAME], "m": "\U0001f600" * failure.MAX_MESSAGE, "f": frames}
    (report,) = wire.ReportReader(100).feed(wire.pack_report(wire.Report(described, b"")))
    assert report.header == described
