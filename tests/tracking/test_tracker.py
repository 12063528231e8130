from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpo.tracking import FINISHED, INTERRUPTED, RunFolder, RunInfo, Tracker


def test_a_row_holds_the_axes_the_numbers_and_the_seconds_of_the_phases(run: RunFolder, plain_console):
    console, output = plain_console
    with Tracker(run, console) as tracker:
        with tracker.phase("starting Ray", announce=True):
            time.sleep(0.05)
        assert tracker.wall_clock_s == 0  # start-up is not training
        for _ in range(2):
            with tracker.phase("generate", total=4) as phase:
                phase.advance(4)
                time.sleep(0.05)
        tracker.log(
            1, 64, {"train/pass_rate": np.float32(0.5), "policy/entropy": torch.tensor(0.25), "response/tokens": 200}
        )
        with tracker.phase("evaluate held_out"):
            time.sleep(0.05)
        tracker.log(1, 64, {"eval/held_out/pass@1": 0.25})
        tracker.finish()
    first, second = run.metrics
    assert list(first)[:4] == ["step", "generations", "wall_clock_s", "time"]
    assert (first["step"], first["generations"], first["train/pass_rate"], first["policy/entropy"]) == (
        1,
        64,
        0.5,
        0.25,
    )
    assert 0.1 <= first["time/generate"] <= first["wall_clock_s"] + 0.001
    assert first["throughput/tokens_per_s"] == pytest.approx(200 / first["time/generate"])
    assert "time/starting_Ray" not in first and "time/generate" not in second
    assert second["time/evaluate_held_out"] >= 0.05 and second["wall_clock_s"] >= 0.15
    lines = output.getvalue().splitlines()
    assert lines[2].startswith("step  1/10 | pass rate 0.50") and lines[3].startswith("evaluation, step 1: held-out")
    assert len(lines) == 4 and run.info.status == FINISHED


def test_the_clock_goes_on_after_a_resume(run: RunFolder, plain_console):
    run.append_metrics({"step": 1, "generations": 64, "wall_clock_s": 100.0})
    run.append_metrics({"step": 2, "generations": 128, "wall_clock_s": 200.0})
    run.resume(1)
    tracker = Tracker(run, plain_console[0])
    time.sleep(0.2)  # between resume and first phase: start-up
    tracker.log(2, 128, {"a": 1.0})
    assert run.metrics[-1]["wall_clock_s"] == pytest.approx(100.0, abs=0.15)


def test_what_is_not_a_number_is_seen_and_kept_as_null(run: RunFolder, plain_console):
    console, output = plain_console
    tracker = Tracker(run, console)
    bad = {
        f"a/{i}": value
        for i, value in enumerate([np.nan, np.inf, None, -np.inf, np.float32("nan"), torch.tensor(np.nan)])
    }
    tracker.log(1, 64, {"learner/grad_norm": 1.0, **bad})
    assert {key: run.metrics[0][key] for key in bad} == dict.fromkeys(bad)
    [warning] = [line for line in output.getvalue().splitlines() if "warning" in line]  # one, however many there are
    assert (
        warning == "warning: metrics of step 1 that could not be computed, and are null: a/0, a/1, a/2, a/3 and 2 more"
    )
    with pytest.raises(TypeError, match="verdict"):
        tracker.log(2, 64, {"verdict": "accepted"})
    with pytest.raises(TypeError, match="lengths"):
        tracker.log(2, 64, {"lengths": np.zeros(3)})
    assert len(run.metrics) == 1


def test_rollouts_and_the_reason_of_an_interruption_are_kept(tmp_path: Path, info: RunInfo, plain_console):
    with RunFolder(tmp_path / "run") as folder:
        folder.create(info, {})
        tracker = Tracker(folder, plain_console[0])
        tracker.rollouts(3, [{"problem_id": "p", "response": "x"}])
        tracker.finish(INTERRUPTED, "Ctrl-C")
    assert (folder.info.status, folder.info.reason) == (INTERRUPTED, "Ctrl-C")
    assert [path.name for path in folder.rollouts.iterdir()] == ["step-000003.parquet"]
