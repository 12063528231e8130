"""Nothing hangs, nothing leaks, nothing is left behind; and the sandbox can be used from anywhere."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox import Job, Limits, Sandbox, SandboxError, TestCase, Verdict

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
    return sandbox._engine._server.process.pid


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


def test_a_second_death_is_a_sandbox_error(sandbox):
    future = sandbox._engine.submit(SLEEP)
    _kill_runners(sandbox)
    time.sleep(0.3)
    _kill_runners(sandbox)
    judgement = future.result(60)
    assert judgement.verdict is Verdict.SANDBOX_ERROR and "killed from outside" in judgement.message
    assert sandbox.judge(ADD, TESTS).passed


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
    _wait_until(lambda: len(sandbox._engine._idle) == 4 and not sandbox._engine._coming)
    descriptors, memory = len(os.listdir("/proc/self/fd")), _resident_kib()
    verdicts = [sorted({judgement.verdict.value for judgement in sandbox.judge_many(jobs)}) for _ in range(4)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    assert verdicts[0] == ["accepted", "compile error", "memory limit", "runtime error", "wrong answer"]
    _wait_until(lambda: len(sandbox._engine._idle) == 4 and not sandbox._engine._coming)
    _wait_until(lambda: len(_descendants(_server_pid(sandbox))) <= 5)  # 4 that wait, the server behind its keeper
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert _resident_kib() - memory < 8 * 1024


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
        "        boxes[-1].judge('print(2)', [TestCase('', '2')])\n"
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
