"""Two Ray nodes: the one with the engine is lost in the middle of a run."""

from __future__ import annotations

import json

import pytest
from ray.cluster_utils import Cluster

from tests.helpers.commands import Run

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


def test_losing_the_machine_of_the_engines_does_not_lose_the_run(tmp_path, monkeypatch):
    """Either machine has room for one of the two, so that the learner runs beside the driver, the engine elsewhere."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        elsewhere = cluster.add_node(num_cpus=1)
        run = Run(tmp_path, "run.steps=4", "learner.ranks=1", address=cluster.address)
        run.wait_for("step 1/4")
        cluster.remove_node(elsewhere, allow_graceful=False)
        assert run.end() == 0, run.output
    finally:
        cluster.shutdown()
    folder = tmp_path / "runs" / "livecodebench-sdpo-seed0"
    events = json.loads((folder / "run.json").read_text())["events"]
    # More than one where Ray puts the first replacement on the machine that is going.
    assert {event["part"] for event in events} == {"rollout engine 0"} and "machine" in events[0]["cause"], events
    assert "Traceback" not in run.output
