"""A reward of one's own in a real run: its words reach the teacher, and its faults cost single rewards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from sdpo.config.paths import PROJECT
from sdpo.tracking.rollouts import read_rollouts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAULTY = """
import os, random, time
from sums import reward as right

def reward(task, response):
    what = random.randrange(8)
    if what == 0:
        os._exit(1)
    if what == 1:
        time.sleep(30)
    if what == 2:
        return "right"
    return right(task, response)
"""


def test_a_run_with_a_faulty_reward_comes_to_its_end(tmp_path):
    for name in ("sums.py", "sums.jsonl", "sums.yaml"):
        shutil.copy(PROJECT / "docs" / "examples" / name, tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY)
    command = [
        sys.executable, "-m", "sdpo.cli", "train", "sums.yaml", "--profile", "cpu", "run.steps=2",
        "environment.reward=faulty.py:reward", "environment.time_limit_s=2", "evaluation.at_start=false",
        "evaluation.every=0", "evaluation.samples=1", "evaluation.ks=[1]", "tracking.wandb=disabled",
        "name=sums-sdpo-seed0",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "sums-sdpo-seed0"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counted = {key.removeprefix("verdict/") for row in rows for key in row if key.startswith("verdict/")}
    assert {"reward_crash", "reward_timeout", "reward_nonsense", "not_solved"} <= counted
    assert done.stderr.count("(reward timeout: ") == 1 and "could not be graded" in done.stdout
    assert any("There is no number in your answer." in str(row) for row in read_rollouts(folder / "rollouts", 1))
