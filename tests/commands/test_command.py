"""`sdpo train` as a user runs it: interrupted, resumed, finished, and nothing left behind."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.helpers.commands import SDPO, Run

pytestmark = pytest.mark.timeout(600)


def test_interrupted_resumed_finished_and_left_alone(tmp_path):
    first = Run(tmp_path)
    first.wait_for("step 1/3")
    first.interrupt()
    assert first.end() == 130, first.output
    assert "is saved in" in first.output and "Traceback" not in first.output

    second = Run(tmp_path)
    assert second.end() == 0, second.output
    assert "Resuming" in second.output and "after step" in second.output and "Finished." in second.output
    folder = tmp_path / "runs" / "livecodebench-sdpo-seed0"
    assert (folder / "report.html").is_file()
    assert sorted(p.name for p in (folder / "rollouts").iterdir()) == [f"step-{i:06d}.parquet" for i in (1, 2, 3)]

    third = Run(tmp_path)
    assert third.end() == 0
    assert "is finished; nothing to do" in third.output and "--fresh" in third.output

    other = Run(tmp_path, "learner.lr=1e-7", "name=livecodebench-sdpo-seed0")
    assert other.end() == 2 and "→ 1e-07" in other.output and "--fork" in other.output


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
