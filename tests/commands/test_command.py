"""Commands as a user runs them; `test_faults` has one that is interrupted, resumed and finished."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.helpers.commands import SDPO, Run

pytestmark = pytest.mark.timeout(600)


@pytest.mark.slow
def test_interrupted_while_the_parts_start(tmp_path):
    run = Run(tmp_path)
    run.wait_for("starting DeepSpeed ranks")
    time.sleep(2)
    run.interrupt()
    assert run.end() == 130, run.output
    assert "Stopped by SIGINT" in run.output and "Traceback" not in run.output


@pytest.mark.slow
def test_a_profile_tells_where_time_and_memory_went(tmp_path):
    command = [*SDPO, "profile", "livecodebench", "--profile", "cpu", "--steps", "1", "run.questions=4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("mean of 1", "generate", "update", "engines at work", "peak, largest rank", "aten::mm"):
        assert said in done.stdout
    assert not any(tmp_path.iterdir())  # it leaves no run folder behind
