"""What is said of processes that really are stopped, killed, or gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sdpo.supervision.processes import ProcessTable


@pytest.fixture
def start():
    started = []

    def begin(*command):
        started.append(subprocess.Popen(command or ("sleep", "60"), start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def soon(look, seconds=20.0):
    """The first trouble that a look finds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "nothing was noticed"
        time.sleep(0.02)
    return found


def test_nothing_is_wrong_with_a_process_that_waits_or_works(start):
    table, sleeps, works = ProcessTable(), start(), start(sys.executable, "-c", "while True: pass")
    for _ in range(5):
        assert table.look([sleeps.pid, works.pid, os.getpid()]) == {}


def test_a_stopped_process_is_noticed_on_the_second_look(start):
    """One look alone can meet a debugger that samples it."""
    table, process = ProcessTable(), start()
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    assert table.look([process.pid]) == {}
    assert "stopped" in table.look([process.pid])[process.pid]
    process.send_signal(signal.SIGCONT)
    time.sleep(0.1)
    assert table.look([process.pid]) == {}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
@pytest.mark.parametrize("reaped", [True, False])
def test_a_dead_process_is_named_with_its_signal(start, name, reaped):
    table, process = ProcessTable(), start()
    table.look([process.pid])
    process.send_signal(getattr(signal, name))
    if reaped:
        process.wait()
    found = soon(lambda: table.look([process.pid]))[process.pid]
    assert name in found or (reaped and found == "has died")  # kernels before 6.15 do not tell
    assert "memory" not in found
    assert table.look([process.pid])[process.pid] == found


def test_a_process_that_ended_by_itself_is_named_with_its_exit_status(start):
    table, process = ProcessTable(), start("sh", "-c", "exit 3")
    assert "3" in soon(lambda: table.look([process.pid]))[process.pid]


def test_a_stopped_child_of_a_process_that_starts_is_found(start):
    table, parent = ProcessTable(), start("sh", "-c", "sleep 60 & wait")
    [child] = soon(lambda: [int(n) for n in open(f"/proc/{parent.pid}/task/{parent.pid}/children").read().split()])
    os.kill(child, signal.SIGSTOP)
    assert soon(lambda: table.look([parent.pid], [parent.pid])).keys() == {child}
    os.kill(child, signal.SIGKILL)


def test_killing_ends_what_is_stopped(start):
    table, process = ProcessTable(), start()
    process.send_signal(signal.SIGSTOP)
    table.look([process.pid])
    table.kill([process.pid])
    assert process.wait(20) == -signal.SIGKILL


CHILD = """
import os, sys, threading, time
from sdpo.supervision.lifeline import die_with
die_with(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, str(os.getpid())])"


@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_dies_with_its_parent_even_while_it_is_stopped(stopped):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    table = ProcessTable()
    assert table.look([child]) == {}
    if stopped:
        os.kill(child, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    soon(
        lambda: (
            not os.path.exists(f"/proc/{child}/stat") or "stopped" not in str(table.look([child]).get(child, "stopped"))
        )
    )
