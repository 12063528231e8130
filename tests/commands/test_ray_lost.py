"""Ray's own processes killed or stopped under a running command: a clean end, one message, and the same command."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from tests.helpers.commands import Run

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


@pytest.mark.parametrize(
    "name, number", [("gcs_server", signal.SIGKILL), ("raylet", signal.SIGKILL), ("gcs_server", signal.SIGSTOP)]
)
def test_without_ray_the_run_ends_cleanly_and_can_be_resumed(tmp_path, name, number):
    longer = ("run.steps=6", "run.checkpoint_every=1")
    run = Run(tmp_path, *longer)
    run.wait_for("step 2/6")
    [process] = [child for child in psutil.Process(run.process.pid).children() if child.name() == name]
    os.kill(process.pid, number)
    run.wait_for(f"Ray is lost ({name} (process {process.pid})")
    assert run.end() == 2, run.output  # and no process is left
    assert "Traceback" not in run.output
    assert f"{name} (process {process.pid})" in run.output.splitlines()[-1], run.output
    folder = tmp_path / "runs" / "livecodebench-sdpo-seed0"
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "failed" and name in info["reason"]
    again = Run(tmp_path, *longer)
    assert again.end() == 0, again.output
    assert "Resuming" in again.output
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "learner/loss" in row] == [1, 2, 3, 4, 5, 6]
