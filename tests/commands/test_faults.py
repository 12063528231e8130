"""A real run struck on purpose, beside one that is left alone: the short form of `make faults`."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from studies.faults.announced import Announcer
from studies.faults.command import NAME, RANKS, arguments, make, plan
from studies.faults.process import Command, NotThere
from tests.helpers.commands import SDPO

pytestmark = pytest.mark.timeout(1200)


def test_a_struck_run_ends_as_one_that_is_left_alone(tmp_path):
    """An engine's core killed; the driver killed, and the newest checkpoint damaged before it is resumed."""
    strikes, steps = plan("short", 0)
    found = make(strikes, steps, RANKS["short"], tmp_path, math.inf)
    assert found["differences"] == []
    core, damaged = found["outcomes"]
    assert [outcome["wrong"] for outcome in found["outcomes"]] == [[], []]
    assert core["status"] is None and core["lost"] == 0 and "SIGKILL" in core["said"]
    assert damaged["status"] == -9 and damaged["lost"] > 0

    runs = tmp_path / "struck"
    log = (runs / "train.log").read_text()
    assert "Traceback" not in log and "is damaged and not used" in log and "Finished." in log
    folder = runs / NAME
    assert (folder / "report.html").is_file()
    assert sorted(p.name for p in (folder / "rollouts").iterdir()) == [
        f"step-{i:06d}.parquet" for i in range(1, steps + 1)
    ]
    events = json.loads((folder / "run.json").read_text())["events"]
    assert [event["part"] for event in events] == ["rollout engine 0"]

    # Checkpoints are synchronous again: that may change.
    command = [*SDPO, *arguments(steps, RANKS["short"], runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "is finished; nothing to do" in done.stdout and "--fresh" in done.stdout


def test_what_a_command_said_is_not_taken_for_what_the_next_one_says(tmp_path):
    """Between the strike at gcs_server and its end a run goes on for half a minute, and begins phases."""
    runs = tmp_path / "struck"
    runs.mkdir()
    with Command(["--version"], runs) as command:
        command.start()
        assert command.next(lambda line: True) is None and "sdpo" in command.last_words
        Announcer(str(tmp_path / "struck.jsonl"), command.poison)._say("begin", "update")
        command.start()
        assert command.next(lambda line: True) is None
        with pytest.raises(NotThere, match="no raylet among its processes"):
            command.find("raylet")
