"""Several seeds in one command: real runs, one after the other in one process."""

from __future__ import annotations

import json

import pytest

from tests.helpers.commands import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ONE_STEP = ("run.steps=1", "name=x", "tracking.wandb=disabled")


def test_seeds_run_until_one_fails_and_what_is_finished_stays(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "x-seed2").write_text("in the way")
    first = Run(tmp_path, *ONE_STEP, "--seeds", "0,1,2,3")
    assert first.end() == 2, first.output
    assert "x-seed2 is a file, not a run folder" in first.output and "Traceback" not in first.output
    found = {path.name: json.loads((path / "run.json").read_text()) for path in runs.iterdir() if path.is_dir()}
    assert {name: (info["status"], info["seed"]) for name, info in found.items()} == {
        "x-seed0": ("finished", 0),
        "x-seed1": ("finished", 1),
    }
    again = Run(tmp_path, *ONE_STEP, "--seeds", "0,1")
    assert again.end() == 0 and again.output.count("is finished; nothing to do") == 2, again.output
