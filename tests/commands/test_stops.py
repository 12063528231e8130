"""A real run, stopped in each of its phases; what it leaves behind; where it listens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from sdpo.training import guardian
from tests.helpers.commands import COMMAND, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LONG = ("run.steps=100", "run.checkpoint_every=3", "learner.ranks=2")


@pytest.fixture
def temporary(monkeypatch):
    """The folder for temporary files, by a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        monkeypatch.setenv("TMPDIR", path)
        yield Path(path)


def started(folder: Path, until: str) -> Run:
    run = Run(folder, *LONG)
    run.wait_for(until)
    return run


def gone(run: Run, temporary: Path) -> None:
    """Nothing of the run lives on, and nothing is left in the temporary folder, in the time that is promised."""
    deadline = time.monotonic() + guardian.PATIENCE_S
    while (left := [p.pid for p in run.descendants()] + list(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def information(folder: Path) -> dict[str, str]:
    return json.loads((folder / "runs" / "livecodebench-sdpo-seed0" / "run.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["reading the tasks", "starting Ray", "starting DeepSpeed ranks"])
def test_while_it_starts(tmp_path, temporary, phase, number):
    run = started(tmp_path, phase)
    time.sleep(1)
    os.killpg(run.process.pid, number)
    assert run.process.wait(30) == 130, run.output
    gone(run, temporary)
    assert run.output.count(f"Stopped by {number.name}") == 1
    assert "Traceback" not in run.output and "SIGABRT" not in run.output
    if phase == "starting DeepSpeed ranks":  # before it, the run has not begun
        assert information(tmp_path)["status"] == "interrupted"


def listening(driver: psutil.Process) -> set[str]:
    """The addresses at which a run's processes listen; the sandbox's come and go."""
    found = []
    for process in [driver, *driver.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            found += process.net_connections("inet")
    return {c.laddr.ip.removeprefix("::ffff:") for c in found if c.status == psutil.CONN_LISTEN}


def test_stopped_killed_and_resumed(tmp_path, temporary):
    first = started(tmp_path, "step   4/")
    assert listening(psutil.Process(first.process.pid)) == {"127.0.0.1"}
    assert len(list(temporary.iterdir())) == 1  # all that is temporary lies in one folder
    second = subprocess.run([*COMMAND, *LONG], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2 and "is training in" in second.stderr and "Ray" not in second.stdout
    first.process.kill()
    first.process.wait()
    gone(first, temporary)
    assert information(tmp_path)["status"] == "died"

    third = started(tmp_path, "after step ")
    step = resumed_from(third)
    assert step >= 3
    third.wait_for(f"step {step + 2:>3}/")
    os.killpg(third.process.pid, signal.SIGTERM)  # as `timeout` and a closing terminal do it: to the whole group
    assert third.process.wait(120) == 130, third.output
    gone(third, temporary)
    assert "is saved in" in third.output and information(tmp_path)["status"] == "interrupted"

    fourth = started(tmp_path, "after step ")
    assert resumed_from(fourth) >= step + 2
    while (learner := named(fourth, "LearnerRank")) is None:
        time.sleep(0.05)
    fourth.wait_for(f"step {resumed_from(fourth) + 1:>3}/")
    learner.send_signal(signal.SIGSTOP)  # the update hangs
    fourth.process.send_signal(signal.SIGTERM)
    assert fourth.process.wait(120) == 130, fourth.output
    gone(fourth, temporary)
    assert information(tmp_path)["status"] == "interrupted"


def named(run: Run, name: str) -> psutil.Process | None:
    for process in run.descendants():
        with suppress(psutil.NoSuchProcess):  # some come and go
            if name in " ".join(process.cmdline()):
                return process
    return None


def resumed_from(run: Run) -> int:
    found = re.search(r"after step (\d+)", run.output)
    assert found is not None
    return int(found[1])
