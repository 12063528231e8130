"""Signals to a real process, in each of its phases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

HEAD = """
import asyncio, os, subprocess, sys, time
from sdpo.training.interrupt import STOPPED, Interrupt, Signals, Stopped, at_end
def say(text): print(text, flush=True)
"""
START_UP = """
import ctypes
output = os.dup(1)  # what is said after the last line is hushed
def note(text): os.write(output, text.encode() + b"\\n")
with Signals(), at_end(lambda: note("first action")), at_end(lambda: note("second action")):
    say("ready")
    ctypes.CDLL(None).sleep(60)  # as deaf as an import, or Ray's start
"""
AGAIN = """
with Signals() as signals:
    Interrupt.over(0)
    signals.again()  # the next run begins
    say("ready")
    time.sleep(60)
"""
TRAINING = """
async def main():
    with Interrupt(say, limit_s=LIMIT) as interrupt:
        try:
            say("ready")
            WORK
        except Stopped:
            interrupt.saving()
            say("saved after " + interrupt.signal)
        interrupt.ended()
        return STOPPED
with Signals():
    sys.exit(asyncio.run(main()))
"""
GENERATION = "await interrupt.unless_stopped(asyncio.sleep(60))"
UPDATE = "time.sleep(2); interrupt.check()"  # the loop does not even run
HUNG = "time.sleep(60)"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def started(program: str, before=None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def training(work: str, limit: float = 30.0) -> str:
    return TRAINING.replace("WORK", work).replace("LIMIT", str(limit))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=50)
    return process.returncode, output


each_signal = pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP))],
)


def test_between_two_runs_of_a_command_the_first_ones_end_does_not_count():
    process = started(AGAIN)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130


@each_signal
def test_while_a_run_starts_a_signal_ends_it_with_one_line_and_its_last_actions(number):
    process = started(START_UP)
    process.send_signal(number)
    status, output = ended(process)
    assert status == 130
    said, *actions = output.splitlines()
    assert signal.Signals(number).name in said and "Nothing had to be saved" in said
    assert actions == ["first action", "second action"]


@each_signal
@pytest.mark.parametrize("work", [GENERATION, UPDATE])
def test_in_training_the_first_signal_saves(number, work):
    process = started(training(work))
    process.send_signal(number)
    status, output = ended(process)
    assert status == 130 and f"saved after {signal.Signals(number).name}" in output and "Traceback" not in output


def test_a_second_signal_ends_at_once_without_saving():
    process = started(training(HUNG))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and "Stopping" in process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    status, output = ended(process)
    assert status == 130 and "second signal" in output and "saved after" not in output


def test_one_end_that_is_told_twice_saves():
    """`timeout` signals the process and then its group, to which it belongs."""
    process = started(training(UPDATE))
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    status, output = ended(process)
    assert status == 130 and "saved after SIGTERM" in output and "second signal" not in output


def test_an_update_that_hangs_is_given_up_after_its_time_limit():
    process = started(training(HUNG, limit=0.5))
    process.send_signal(signal.SIGTERM)
    status, output = ended(process)
    assert status == 130 and "goes on from the last checkpoint" in output and "saved after" not in output


def test_nohup_stays_deaf_to_hangups():
    process = started(training(UPDATE), lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    status, output = ended(process)
    assert status == 130 and output == ""  # it came to its end


def test_a_signal_after_the_end_changes_nothing_of_the_exit_status():
    process = started("with Signals():\n    Interrupt.over(0)\n    say('ready')\n    time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0


@each_signal
def test_a_signal_to_the_whole_group_leaves_the_parts_to_the_driver(number):
    """Ctrl-C in a terminal, its end, `timeout`, `kill %1`: engines and learner must live until the driver has saved."""
    child = "[sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']"
    program = training(f"""child = subprocess.Popen({child}, stdout=subprocess.PIPE)
            child.stdout.readline(); say("child started")
            try:
                {GENERATION}
            finally:
                say("the child is alive: " + str(child.poll() is None)); child.kill()""")
    process = started(program)
    assert process.stdout is not None and process.stdout.readline() == "child started\n"
    os.killpg(process.pid, number)
    status, output = ended(process)
    assert status == 130 and "the child is alive: True" in output


def test_what_a_terminal_took_with_it_is_not_missed():
    """After a hang-up every line that a run prints raises an error; it must be saved all the same."""
    import pty

    leader, follower = pty.openpty()
    program = HEAD + training(GENERATION).replace(
        'say("saved after " + interrupt.signal)', 'say("gone"); open(sys.argv[1], "w").write(interrupt.signal)'
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program, f"/dev/fd/{writer}"],
        stdin=follower, stdout=follower, stderr=follower, pass_fds=[writer], start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(follower), os.close(writer)
    output = b""
    while b"ready\r\n" not in output:  # all of it: a write that is under way would fail
        output += os.read(leader, 1024)
    os.close(leader)  # the terminal's window is closed
    assert process.wait(50) == 130
    assert os.read(reader, 100) == b"SIGHUP"
    os.close(reader)


def test_signals_are_as_before_once_a_command_is_over():
    from sdpo.training.interrupt import Signals

    before = [signal.getsignal(number) for number in SIGNALS], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Signals():
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGINT, signal.SIGTERM}
    assert ([signal.getsignal(number) for number in SIGNALS], signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before
