"""Nothing hangs, nothing leaks, nothing is left behind; and the sandbox can be used from anywhere."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox import BadTests, Job, Judgement, Limits, Sandbox, SandboxError, TestCase, Verdict

ROOT = Path(__file__).parents[2]
ADD = "print(int(input()) + 1)"
TESTS = [TestCase("1", "2"), TestCase("5", "6")]
SLEEP = Job("import time\ntime.sleep(1)\nprint(2)", [TestCase("", "2")], Limits(cpu_time_s=20, wall_time_s=60))


def _descendants(process_id: int) -> list[int]:
    """Process ids of everything below a process."""
    found = []
    for task in Path(f"/proc/{process_id}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _server_pid(sandbox: Sandbox) -> int:
    return sandbox._engine._plain.server.process.pid


def _wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def sandbox():
    with Sandbox(workers=2, pool=4) as one:
        yield one


def _kill_runners(sandbox: Sandbox) -> None:
    """SIGKILL every process that is at work on a program, as the kernel does when memory is short."""
    _wait_until(lambda: sandbox._engine._runs)
    for run in list(sandbox._engine._runs.values()):
        os.kill(run.child.process_id, signal.SIGKILL)


def test_a_worker_that_dies_once_is_replaced_and_its_program_judged_again(sandbox):
    future = sandbox._engine.submit(SLEEP)
    _kill_runners(sandbox)
    assert future.result(60).passed
    assert sandbox.judge(ADD, TESTS).passed


def _kill_again_and_again(sandbox: Sandbox, times: int, others: bool = False) -> Judgement:
    future = sandbox._engine.submit(SLEEP)
    deaths = -1

    def running_again() -> bool:
        return future.done() or any(run.task.deaths > deaths for run in list(sandbox._engine._runs.values()))

    while deaths + 1 < times and not future.done():
        _wait_until(running_again)
        if others and deaths < 0:
            _wait_until(lambda: sandbox.idle > 1)
            os.kill(sandbox._engine._plain.idle[-1].process_id, signal.SIGKILL)
        for run in list(sandbox._engine._runs.values()):
            deaths = run.task.deaths
            os.kill(run.child.process_id, signal.SIGKILL)
    return future.result(60)


def test_several_deaths_are_forgiven(sandbox):
    assert _kill_again_and_again(sandbox, 3).passed


def test_a_program_that_always_dies_while_nothing_else_does_is_to_blame(sandbox):
    """However it does that, the verdict is not one that trainers leave out."""
    judgement = _kill_again_and_again(sandbox, 4)
    assert judgement.verdict is Verdict.RUNTIME_ERROR and "killed from outside" in judgement.tests[-1].message
    assert sandbox.counts == {"judged": 1, "sandbox_errors": 0}
    assert sandbox.judge(ADD, TESTS).passed


def test_where_others_die_too_it_is_a_sandbox_error_counted_and_warned_of(sandbox, caplog):
    judgement = _kill_again_and_again(sandbox, 4, others=True)
    assert judgement.verdict is Verdict.SANDBOX_ERROR and "killed from outside" in judgement.message
    assert sandbox.counts == {"judged": 1, "sandbox_errors": 1}
    assert "failed on 1 of 1 programs" in caplog.text
    assert sandbox.judge(ADD, TESTS).passed


def test_a_fork_server_killed_while_it_starts_is_started_again(sandbox, monkeypatch):
    start, attempts = sandbox._engine._plain.starter.start, []

    def killed_once():
        attempts.append(1)
        if len(attempts) == 1:
            raise SandboxError("the fork server did not start: no answer")
        return start()

    monkeypatch.setattr(sandbox._engine._plain.starter, "start", killed_once)
    os.kill(_server_pid(sandbox), signal.SIGKILL)
    _wait_until(lambda: len(attempts) == 2)
    assert sandbox.judge(ADD, TESTS).passed


def _stop(process_ids) -> None:
    for number in process_ids:
        os.kill(number, signal.SIGSTOP)


def test_a_stopped_fork_server_is_replaced(sandbox):
    stopped = sandbox._engine._plain.server.server_id
    _stop([stopped])
    judgements = sandbox.judge_many([Job(ADD, TESTS)] * 40)  # more than the children that are ready
    assert all(judgement.passed for judgement in judgements)
    assert sandbox._engine._plain.server.server_id != stopped


def test_a_child_stopped_at_work_is_replaced_and_its_program_judged_again(sandbox):
    """Also where it stands still for longer than the program may take."""
    futures = [sandbox._engine.submit(Job(SLEEP.code, SLEEP.tests, Limits(cpu_time_s=2, wall_time_s=2)))
               for _ in range(2)]  # fmt: skip
    _wait_until(lambda: len(sandbox._engine._runs) == 2)
    _stop(run.child.process_id for run in list(sandbox._engine._runs.values()))
    assert all(future.result(60).passed for future in futures)


def test_children_stopped_while_they_wait_for_a_program(sandbox):
    _wait_until(lambda: sandbox.idle == 4)
    _stop(child.process_id for child in list(sandbox._engine._plain.idle))
    assert all(judgement.passed for judgement in sandbox.judge_many([Job(ADD, TESTS)] * 8))


def test_a_program_that_stops_itself_gets_a_verdict(sandbox):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint(2)"
    judgement = sandbox.judge(code, [TestCase("1", "2")], Limits(cpu_time_s=1, wall_time_s=20))
    assert judgement.verdict in (Verdict.RUNTIME_ERROR, Verdict.TIME_LIMIT)


HALF = "\ud83d"  # of an emoji


@pytest.mark.parametrize(
    "code, test, accepted",
    [
        ("print(1)", TestCase(HALF, "1"), True),
        ("print(input())", TestCase(f"a{HALF}b", f"a{HALF}b"), True),
        ("print(input())", TestCase(f"\udcc3\udca9{HALF}\udcff", f"\udcc3\udca9{HALF}\udcff"), True),
        (f"print('{HALF}')", TestCase("", "1"), False),
        (f"# {HALF}\nprint(1)", TestCase("", "1"), False),
        ("print(chr(0xd83d))", TestCase("", "1"), False),
        ("raise ValueError(chr(0xd83d))", TestCase("", "1"), False),
        ("def f(x): return x", TestCase(f'"{HALF}"', f'"{HALF}"', "functional", "f"), True),
        ("def f(x): return x", TestCase('"\\ud83d"', '"\\ud83d"', "functional", "f"), True),
        ("def f(x): return x", TestCase("1", "1", "functional", HALF), False),
        ("import m\nprint(m.x)", TestCase("1", "1"), False),
    ],
)
def test_lone_surrogates_anywhere_get_a_verdict_and_no_text_with_surrogates(sandbox, code, test, accepted):
    judgement = sandbox.judge(code, [test], files={"m": f"x = '{HALF}'", HALF: "x = 1"})
    assert judgement.passed == accepted, judgement
    (result,) = judgement.tests
    shown = (judgement.message, result.stdout, result.message, result.value, result.exception_type, result.input)
    "".join(text or "" for text in (*shown, *(frame.source for frame in result.frames))).encode("utf-8")
    assert sandbox.judge(ADD, TESTS).passed


@pytest.mark.parametrize("files", [{"m": object()}, {"m": {1: "x"}}, {1: "x"}])
def test_what_cannot_be_handed_to_a_child_is_an_error_of_its_own_job(sandbox, files):
    with pytest.raises((BadTests, AttributeError, TypeError)):
        if not sandbox.judge(ADD, TESTS, files=files).passed:  # a child may also stumble over it, as over any program
            raise BadTests("refused with a verdict")
    assert sandbox.judge(ADD, TESTS).passed


def test_an_outer_wall_is_put_before_the_fork_server():
    with Sandbox(workers=1, pool=1, outer=["env"]) as sandbox:
        assert sandbox.judge(ADD, TESTS).passed


def test_an_outer_wall_that_cannot_start_says_why():
    with pytest.raises(SandboxError, match="did not start: no wall today"):
        Sandbox(workers=1, outer=[sys.executable, "-c", "import sys; sys.exit('no wall today')"])
    with pytest.raises(SandboxError, match="did not start.*nowhere"):
        Sandbox(workers=1, outer=["/nowhere/bwrap"])


BUBBLEWRAP = "bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /run --unshare-all --die-with-parent --new-session"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_as_an_outer_wall():
    """The line of docs/sandbox.md; where bubblewrap cannot start (in many containers), its own reason is told."""
    assert BUBBLEWRAP in (ROOT / "docs" / "sandbox.md").read_text()
    try:
        sandbox = Sandbox(workers=2, pool=2, outer=BUBBLEWRAP.split())
    except SandboxError as error:
        assert "bwrap: " in str(error)
        return
    with sandbox:
        assert sandbox.judge(ADD, TESTS).passed
        loop = sandbox.judge("while True: pass", TESTS, Limits(cpu_time_s=0.3))
        assert loop.verdict is Verdict.TIME_LIMIT and loop.tests[0].cpu_time_s > 0.25
        server = _server_pid(sandbox)
        left = [server, *_descendants(server)]
    _wait_until(lambda: not [pid for pid in left if _alive(pid)])


NEEDS_CPU = "import time\nwhile time.process_time() < 0.8: pass\nprint(int(input()) + 1)"


@pytest.mark.slow
def test_waiting_for_a_core_is_not_the_programs_time():
    """Three busy processes for every core; the wall limit is less than what a share of a core needs."""
    many = 3 * len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(many)]
    try:
        with Sandbox() as sandbox:
            jobs = [Job(NEEDS_CPU, TESTS[:1], Limits(cpu_time_s=2, wall_time_s=1.6))] * 4
            judgements = sandbox.judge_many(jobs)
            sleeper = sandbox.judge("import time\ntime.sleep(1000)", TESTS, Limits(cpu_time_s=2, wall_time_s=1.6))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [judgement.verdict.value for judgement in judgements] == ["accepted"] * 4
    assert max(judgement.tests[0].wall_time_s for judgement in judgements) > 1.6, "the machine was not busy"
    assert sleeper.verdict is Verdict.TIME_LIMIT


def test_the_fork_server_is_replaced_when_it_dies(sandbox):
    future = sandbox._engine.submit(SLEEP)
    _wait_until(lambda: sandbox._engine._runs)
    os.kill(_server_pid(sandbox), signal.SIGKILL)
    assert future.result(60).passed
    assert sandbox.judge(ADD, TESTS).passed


def test_close_while_the_engine_is_awake(monkeypatch):
    """It may see that it is to end before it is woken for it; its descriptor must still be there then."""
    write = os.eventfd_write

    def late(descriptor: int, value: int) -> None:
        write(descriptor, value)
        time.sleep(0.3)
        write(descriptor, value)

    sandbox = Sandbox(workers=1)
    monkeypatch.setattr(os, "eventfd_write", late)
    sandbox.close()


def test_close_ends_every_process_and_descriptor():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with Sandbox(workers=2, pool=4) as sandbox:
        assert sandbox.judge(ADD, TESTS).passed
        pids = [_server_pid(sandbox), *_descendants(_server_pid(sandbox))]
        assert len(pids) > 2
    _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_while_programs_run_ends_them_with_an_error():
    sandbox = Sandbox(workers=1)
    future = sandbox._engine.submit(SLEEP)
    _wait_until(lambda: sandbox._engine._runs)
    sandbox.close()
    with pytest.raises(SandboxError):
        future.result(10)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.judge(ADD, TESTS)
    sandbox.close()


def test_nothing_is_left_when_the_parent_is_killed():
    script = (
        "import sys, time\nfrom sandbox import *\ns = Sandbox(workers=2, pool=3)\n"
        "s._engine.submit(Job('while True: pass', [TestCase('', '')], Limits(cpu_time_s=100)))\n"
        "time.sleep(1)\nprint('ready', flush=True)\ntime.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    left = _descendants(parent.pid)
    assert len(left) >= 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: not [pid for pid in left if _alive(pid)])


def _alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_short_soak_leaks_nothing(sandbox):
    kinds = [
        ADD,
        "print(",
        "1/0",
        "import os; os._exit(0)",
        "x = [0] * 10**12",
        "print(3)",
        "import ctypes; ctypes.string_at(0)",
    ]
    jobs = [Job(code, TESTS, Limits(cpu_time_s=10, wall_time_s=60)) for code in kinds * 10]
    sandbox.judge_many(jobs)  # everything that is allocated once has been
    _wait_until(lambda: len(sandbox._engine._plain.idle) == 4 and not sandbox._engine._plain.coming)
    descriptors, memory = len(os.listdir("/proc/self/fd")), _resident_kib()
    verdicts = [sorted({judgement.verdict.value for judgement in sandbox.judge_many(jobs)}) for _ in range(4)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    assert verdicts[0] == ["accepted", "compile error", "memory limit", "runtime error", "wrong answer"]
    _wait_until(lambda: len(sandbox._engine._plain.idle) == 4 and not sandbox._engine._plain.coming)
    _wait_until(lambda: len(_descendants(_server_pid(sandbox))) <= 5)  # 4 that wait, the server behind its keeper
    # Those of children that have just ended may still be closed, and other tests' too.
    _wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    assert _resident_kib() - memory < 8 * 1024


def test_a_short_soak_with_hostile_programs_and_random_kills():
    """The one of benchmarks/sandbox.py, a thousandth as long and with kills ten times as often."""
    path = ROOT / "benchmarks" / "sandbox.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_the_sandbox", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    told = benchmark.soak(300, kill_every_s=0.1)
    assert told["programs"] == 300 and told["wrong"] == {} and sum(told["killed"].values()) > 3, told


def _resident_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def test_several_threads_at_once(sandbox):
    results = []

    def work(number: int) -> None:
        for n in range(5):
            results.append(sandbox.judge(ADD, [TestCase(str(number * n), str(number * n + 1))]).passed)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 30


async def test_hundreds_of_concurrent_judgements_in_one_loop(sandbox):
    judgements = await asyncio.gather(*(sandbox.ajudge(ADD, [TestCase(str(n), str(n + n % 2))]) for n in range(200)))
    assert [judgement.passed for judgement in judgements] == [n % 2 == 1 for n in range(200)]
    assert [j.passed for j in await sandbox.ajudge_many([Job(ADD, TESTS), Job(None, TESTS)])] == [True, False]


async def test_a_cancelled_judgement_does_not_disturb_the_others(sandbox):
    waiting = [asyncio.ensure_future(sandbox.ajudge(SLEEP.code, SLEEP.tests, SLEEP.limits)) for _ in range(6)]
    await asyncio.sleep(0.2)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await sandbox.ajudge(ADD, TESTS)).passed


def test_a_sandbox_survives_the_thread_that_made_it():
    made = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(workers=1)))
    thread.start()
    thread.join()
    with made[0] as sandbox:
        time.sleep(0.3)
        assert sandbox.judge(ADD, TESTS).passed


@pytest.mark.parametrize("descriptors", [27, 29, 40, 41, 59, 60])
def test_too_few_descriptors_are_named_as_the_cause(descriptors):
    script = (
        f"import resource\nfrom sandbox import *\nresource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2)\n"
        "boxes = []\n"
        "try:\n"
        "    for _ in range(9):\n"
        "        boxes.append(Sandbox(workers=1))\n"
        "        [box.judge('print(2)', [TestCase('', '2')]) for box in boxes]\n"  # one may end after its verdict
        "except SandboxError as error:\n"
        "    print(error)\n"
        "import os\nos._exit(not print('', end='', flush=True))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Too many open files" in answer.stdout, answer


def test_a_fork_server_that_cannot_start_is_a_sandbox_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="did not start.*nowhere"):
        Sandbox(workers=1)


def test_importing_the_package_brings_in_nothing_heavy():
    script = (
        "import sys, sandbox\nloaded = {m.split('.')[0] for m in sys.modules}\n"
        "print(sorted(loaded & {'torch', 'sdpo', 'ray', 'numpy', 'rich'}))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_servers_are_scheduled_together_with_their_caller(sandbox):
    """Linux gives every session one share of the processor (sched_autogroup), and one that is rarely at work waits for
    its share longer than programs take: a step beside four busy processes took seven times as long, not 2.5 times."""
    processes = [_server_pid(sandbox), *_descendants(_server_pid(sandbox))]
    assert {os.getsid(process) for process in processes} == {os.getsid(0)}
    assert os.getpgid(_server_pid(sandbox)) != os.getpgid(0)  # a terminal's Ctrl-C does not reach them


TERMINAL = """
import fcntl, os, sys, termios
from sandbox import Sandbox, TestCase
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
open("/dev/tty").close()
with Sandbox(workers=1, isolation="none") as sandbox:
    judged = sandbox.judge("open('/dev/tty')", [TestCase("", "")], stop="all")
print(judged.tests[0].verdict.value, judged.tests[0].message, flush=True)
"""


def test_programs_have_no_terminal():
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", TERMINAL]
    done = subprocess.run(command, cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.stdout == "runtime error [Errno 6] No such device or address: '/dev/tty'\n", done.stdout + done.stderr
