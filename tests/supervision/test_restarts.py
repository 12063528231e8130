"""How often parts may be started again, and what is written down of it."""

from __future__ import annotations

import json

import pytest

from sdpo.errors import PartFailed
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.training.restarts import Restarts, TooManyRestarts


@pytest.fixture
def tracker(tmp_path, capsys):
    with RunFolder(tmp_path / "run") as folder, Console("run", 10, plain=True) as console:
        folder.create(RunInfo.collect(recipe="r", algorithm="sdpo", seed=0, profile="cpu"), {})
        yield Tracker(folder, console)


def failure(number: int) -> PartFailed:
    return PartFailed("rollout engine 0", f"its vLLM core (process {number}) was killed by SIGKILL", "publish")


def test_every_restart_is_written_down(tracker, tmp_path, capsys):
    restarts = Restarts(10, 5, tracker)
    with tracker.phase("publish"):
        restarts.permit(failure(7), 3, "it is replaced", "step 2")
    restarts.permit(failure(8), 3, "it is replaced", "step 2")
    info = RunInfo.read(tmp_path / "run" / "run.json")
    assert [(e["step"], e["phase"], e["part"], e["action"]) for e in info.events] == [
        (4, "publish", "rollout engine 0", "it is replaced")
    ] * 2
    assert "process 8" in info.events[1]["cause"] and info.events[0]["time"].startswith("20")
    assert info.status == "running"
    shown = capsys.readouterr().out
    assert shown.count("rollout engine 0, step 4, publish: its vLLM core (process") == 2


def test_the_record_outlives_a_change_of_status(tracker, tmp_path):
    Restarts(10, 5, tracker).permit(failure(7), 0, "it is replaced", "its beginning")
    tracker.finish("interrupted", "Ctrl-C")
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["status"] == "interrupted" and len(content["events"]) == 1


def test_a_part_that_dies_of_the_same_step_again_and_again_ends_the_run(tracker, tmp_path):
    restarts = Restarts(100, 3, tracker)
    for number in range(3):
        restarts.permit(failure(number), 4, "it is replaced", "step 4")
    with pytest.raises(TooManyRestarts, match=r"same_step=3.*process 3.*same command goes on from step 4"):
        restarts.permit(failure(3), 4, "it is replaced", "step 4")
    assert "the run ends" in RunInfo.read(tmp_path / "run" / "run.json").events[-1]["action"]


def test_steps_that_are_made_again_are_no_progress(tracker):
    """A restart of the learner goes back; the count begins anew only beyond where the run had been."""
    restarts = Restarts(100, 2, tracker)
    restarts.permit(failure(0), 4, "restarted", "step 2")
    restarts.permit(failure(1), 3, "restarted", "step 2")
    with pytest.raises(TooManyRestarts):
        restarts.permit(failure(2), 4, "restarted", "step 2")


def test_a_run_that_gets_on_may_be_struck_often_but_not_without_end(tracker):
    restarts = Restarts(30, 2, tracker)
    for step in range(30):
        restarts.permit(failure(step), step, "it is replaced", "its beginning")
    with pytest.raises(TooManyRestarts, match="run.max_restarts=30"):
        restarts.permit(failure(30), 30, "it is replaced", "its beginning")


def test_none_at_all(tracker):
    with pytest.raises(TooManyRestarts, match="run.max_restarts=0"):
        Restarts(0, 0, tracker).permit(failure(0), 0, "it is replaced", "its beginning")
