"""Functions that hang, crash, print, fork and return nonsense: each costs its own call, and no other one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdpo.config.paths import PROJECT
from sdpo.envs.workers import linux
from sdpo.envs.workers.admission import PATIENCE_S, TYPICAL, Admission
from sdpo.envs.workers.pool import WorkerPool
from sdpo.errors import UserError

FUNCTIONS = Path(__file__).parent / "functions.py"


def make_pool(function: object = f"{FUNCTIONS}:act", time_limit_s: float = 100.0, workers: int = 1) -> WorkerPool:
    return WorkerPool(str(function), option="environment.reward", time_limit_s=time_limit_s, workers=workers)


@pytest.fixture(scope="module")
def shared():
    """A pool for calls that come to an end by themselves."""
    pool = make_pool(workers=2)
    pool.start()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def pool():
    """One place, and a limit that no test waits for."""
    made = make_pool()
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def impatient():
    pool = make_pool(time_limit_s=0.3)
    pool.start()
    yield pool
    pool.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.01)


ENDS = {
    "fail": ("error", "ValueError: no such answer"),
    "sys_exit": ("error", "SystemExit: 7"),
    "interrupt": ("error", "KeyboardInterrupt"),
    "recurse": ("error", "RecursionError"),
    "unprintable": ("error", "Unprintable"),
    "exit": ("crash", "ended by itself with status 7"),
    "segfault": ("crash", "SIGSEGV"),
    "close_all": ("crash", "ended by itself"),
    "fork_and_exit": ("crash", "ended by itself with status 3"),
    "scribble": ("crash", "something wrote into the channel"),
    "nan": ("nonsense", "JSON"),
    "object": ("nonsense", "Object of type object"),
    "bytes": ("nonsense", "Object of type bytes"),
    "cyclic": ("nonsense", "Circular reference"),
    "deep": ("nonsense", "recursion"),
    "huge": ("nonsense", "bytes; 1,048,576 are accepted"),
    "write_much": ("output", "it printed more than"),
    "write_much_and_go_on": ("output", "it printed more than"),
    "write_much_below": ("output", "it printed more than"),
    "fork": ("processes", "it forked or left processes running"),
    "fork_and_loop": ("processes", "it forked or left processes running"),
    "leave_child": ("processes", "it forked or left processes running"),
    "thread": ("value", ""),
    "wait_for_child": ("value", ""),
    "forget_child": ("value", ""),
}


@pytest.mark.parametrize("what", ENDS)
async def test_a_faulty_call_costs_itself_only(shared, what):
    """The next one is answered, by a worker in which nothing of it goes on."""
    kind, said = ENDS[what]
    reply = await shared.call(what)
    assert (reply.kind, said in reply.message) == (kind, True), reply
    assert len(reply.output) < 5000
    [given] = [await shared.call("give", [1, "a", None])]
    assert (given.kind, given.value, given.output) == ("value", [1, "a", None], "")
    await until(lambda: len(linux.children(shared._server.pid)) <= 2)  # no more than idle workers


@pytest.mark.parametrize("what", ["loop", "hang_with_children", "never"])
async def test_a_call_without_end_is_ended_with_all_that_it_started(impatient, what):
    reply = await impatient.call(what)
    assert (reply.kind, reply.message) == ("timeout", "it took longer than 0.3 s")
    await until(lambda: not linux.descendants(impatient._server.pid))


async def test_the_traceback_is_the_users_own(shared):
    lines = (await shared.call("fail")).traceback.splitlines()
    assert "functions.py" in lines[0] and lines[-1] == "ValueError: no such answer"
    crash = (await shared.call("segfault")).traceback
    assert "Segmentation fault" in crash and "functions.py" in crash


async def test_what_a_call_prints_is_its_own(shared):
    assert (await shared.call("print")).output == "told\n"
    assert (await shared.call("print_below")).output == "told below\n"
    assert (await shared.call("give", 1)).output == ""


async def test_async_functions_are_waited_for(shared):
    assert (await shared.call("later", 5)).value == 5


async def test_workers_know_nothing_of_training(shared):
    loaded = (await shared.call("modules")).value
    assert not {"torch", "ray", "vllm", "transformers", "deepspeed", "datasets", "sandbox"} & set(loaded)


async def test_what_cannot_be_sent_is_an_error_of_its_call(shared):
    reply = await shared.call("give", lambda: None)
    assert reply.kind == "error" and "cannot be sent to another process" in reply.message


async def test_workers_draw_different_numbers(shared):
    first, second = [
        (await shared.call("random")).value,
        await shared.call("exit"),
        (await shared.call("random")).value,
    ][::2]
    assert first != second


async def test_calls_do_not_queue_behind_those_that_wait(pool, tmp_path):
    """One place.  Twenty calls wait for what only a call after them brings about."""
    waiting = [asyncio.create_task(pool.call("wait_for_file", str(tmp_path / "there"))) for _ in range(20)]
    await asyncio.sleep(0)
    (await pool.call("give", 1)).value  # noqa: B018 — it comes back although twenty are before it
    assert not any(task.done() for task in waiting)
    (tmp_path / "there").touch()
    assert [reply.kind for reply in await asyncio.gather(*waiting)] == ["value"] * 20


async def test_calls_do_not_queue_behind_those_that_compute_without_end(pool):
    for _ in range(3):
        await pool.call("give", 1)  # what usually takes no time
    looping = [asyncio.create_task(pool.call("loop")) for _ in range(4)]
    await asyncio.sleep(0)
    replies = [await pool.call("give", k) for k in range(20)]
    assert [reply.value for reply in replies] == list(range(20))
    assert not any(task.done() for task in looping)
    for task in looping:
        task.cancel()
    await asyncio.gather(*looping, return_exceptions=True)
    await until(lambda: len(linux.children(pool._server.pid)) <= 1)  # their workers went with them


def test_long_computations_keep_their_places_where_all_are_long():
    admission = Admission(workers=2, time_limit_s=8.0)
    assert admission.patience == 2.0  # a quarter of the limit, as nothing is known
    for _ in range(50):
        admission.learn(1.0)
    assert admission.patience == pytest.approx(TYPICAL)
    for _ in range(500):
        admission.learn(0.001)
    assert admission.patience == PATIENCE_S


async def test_where_all_calls_wait_many_begin_at_once():
    """What a call does is known a moment later; until then those before it are all there is to go by."""
    admission = Admission(workers=2, time_limit_s=10)
    made = [asyncio.create_task(admission.place().__aenter__()) for _ in range(100)]
    began = []
    while len(began) < 100:
        await asyncio.sleep(0)
        began.append(sum(task.done() for task in made))
        for task in made[: began[-1]]:
            if task.result()._new:
                task.result()._found(wants_core=False)
        if began[-1] == 100:
            break
    assert began[0] == 2 and len(began) <= 8, began


async def test_processes_are_bounded_whatever_calls_do():
    admission = Admission(workers=1, time_limit_s=10, most=2)
    async with admission.place() as first:
        first._found(wants_core=False)
        async with admission.place() as second:
            second._found(wants_core=False)
            third = asyncio.create_task(admission.place().__aenter__())
            await asyncio.sleep(0.01)
            assert not third.done() and admission.running == 2
        await third


async def test_a_call_that_is_cancelled_takes_its_process_along(pool, tmp_path):
    task = asyncio.create_task(pool.call("mark_and_wait", str(tmp_path / "pid")))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    task.cancel()
    await until(lambda: gone(int((tmp_path / "pid").read_text())))
    assert (await pool.call("give", 1)).value == 1


async def test_a_daemon_that_a_call_leaves_behind_is_ended(shared, tmp_path):
    await shared.call("daemon", str(tmp_path / "pid"))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


async def test_a_server_that_dies_is_started_again(pool):
    hanging = asyncio.create_task(pool.call("sleep", 600))
    await pool.call("give", 1)
    os.kill(pool._server.pid, signal.SIGKILL)
    assert (await hanging).kind == "crash"
    assert (await pool.call("give", 2)).value == 2


def test_a_pool_serves_one_event_loop_after_the_other(pool):
    for k in range(2):
        assert asyncio.run(pool.call("give", k)).value == k


DRIVER = """
import asyncio, sys
from sdpo.envs.workers.pool import WorkerPool
pool = WorkerPool(sys.argv[1], option="o", time_limit_s=600, workers=1)
pool.start()
async def main():
    await asyncio.gather(pool.call("mark_and_wait", sys.argv[2]), pool.call("hang_with_children"))
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_driver(number, tmp_path):
    command = [sys.executable, "-c", DRIVER, f"{FUNCTIONS}:act", str(tmp_path / "pid")]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    [server] = wait_for(lambda: linux.children(driver.pid))
    wait_for(lambda: len(linux.descendants(server)) >= 4)  # two workers, two children of one of them
    below = [server, *linux.descendants(server)]
    os.killpg(driver.pid, number)
    driver.wait()
    wait_for(lambda: all(map(gone, below)))


def wait_for(condition):
    while not (found := condition()):
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def rewrad(): pass", "has no function reward. Did you mean rewrad?"),
        ("1 / 0", r"cannot be imported:\n.*mine.py(.|\n)*ZeroDivisionError"),
        ("import os; os._exit(3)", "cannot be imported: its process ended by itself with status 3"),
        ("import ctypes; ctypes.string_at(0)", r"cannot be imported: it was ended by SIGSEGV(.|\n)*mine.py"),
    ],
)
def test_functions_that_cannot_be_imported(source, says, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UserError, match=says):
        make_pool(tmp_path / "mine.py:reward").start()


def test_an_import_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("sdpo.envs.workers.pool.IMPORT_LIMIT_S", 1.0)
    (tmp_path / "mine.py").write_text("import time; time.sleep(600)")
    with pytest.raises(UserError, match="was not imported within 1 s"):
        make_pool(tmp_path / "mine.py:reward").start()
