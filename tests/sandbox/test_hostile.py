"""No hostile program passes by cheating, leaves a trace or disturbs its neighbours."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from sandbox import IsolationUnavailable, Job, Limits, Sandbox, SandboxError, TestCase, Verdict

_PROGRAMS = runpy.run_path(str(Path(__file__).with_name("hostile_programs.py")))
ATTEMPT, REFUSED = _PROGRAMS["ATTEMPT"], _PROGRAMS["REFUSED"]
EXHAUSTING, DISHONEST_VALUES = _PROGRAMS["EXHAUSTING"], _PROGRAMS["DISHONEST_VALUES"]
LIMITS = Limits(cpu_time_s=0.5, wall_time_s=3.0, memory_mb=256, output_kb=256)
PATIENT = Limits(cpu_time_s=10, wall_time_s=60, memory_mb=256, output_kb=256)  # for what must end before its time
HONEST = Job("print(int(input()) + 1)", [TestCase("1", "2")], Limits(cpu_time_s=10, wall_time_s=60))
TRACES = ("/tmp/trace_of_a_program", "trace_of_a_program", "/trace_of_a_program")


def _levels() -> list[str]:
    """The levels that keep files out, as far as this machine has them."""
    levels = []
    for level in ("namespaces", "landlock"):
        try:
            Sandbox(workers=1, isolation=level, pool=1).close()
            levels.append(level)
        except IsolationUnavailable:
            continue
    return levels


@pytest.fixture(scope="module", params=_levels())
def judged(request) -> dict:
    """All hostile programs at once, an honest one after each."""
    jobs: dict[str, Job] = {}
    for name, code in REFUSED.items():
        jobs[name] = Job(ATTEMPT + code, [TestCase("", "STOLEN")], LIMITS)
    for name, (code, verdicts) in EXHAUSTING.items():
        jobs[name] = Job(code, [TestCase("", "never")], LIMITS if "time limit" in verdicts else PATIENT)
    for name, code in DISHONEST_VALUES.items():
        jobs[name] = Job(code, [TestCase("1", "42", "functional", "f")], LIMITS)
    mixed = [job for hostile in jobs.values() for job in (hostile, HONEST)]
    with Sandbox(workers=4, isolation=request.param) as sandbox:
        judgements = sandbox.judge_many(mixed)
    return {"honest": judgements[1::2]} | dict(zip(jobs, judgements[::2], strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_attack_is_refused(judged, name):
    judgement = judged[name]
    assert not judgement.passed, judgement
    assert judgement.verdict is not Verdict.SANDBOX_ERROR, judgement
    assert "STOLEN" not in (judgement.tests[0].stdout or ""), judgement


@pytest.mark.parametrize("name", EXHAUSTING)
def test_exhaustion_gets_its_verdict(judged, name):
    assert judged[name].verdict in EXHAUSTING[name][1], judged[name]


@pytest.mark.parametrize("name", DISHONEST_VALUES)
def test_value_cannot_take_part_in_the_comparison(judged, name):
    assert not judged[name].passed, judged[name]
    assert judged[name].verdict is not Verdict.SANDBOX_ERROR, judged[name]


def test_neighbours_are_not_disturbed(judged):
    assert [judgement.verdict for judgement in judged["honest"]] == [Verdict.ACCEPTED] * len(judged["honest"])


def test_nothing_was_written(judged):
    assert not [path for path in TRACES if Path(path).exists()]


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
