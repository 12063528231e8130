"""Training from Python, on a Ray cluster that the caller is connected to."""

from __future__ import annotations

import pytest
import ray

import sdpo

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_train_and_evaluate_from_python(tmp_path, capfd):
    options = {
        "run": {"steps": 2, "questions": 4, "directory": tmp_path},
        "evaluation": {"every": 0, "at_start": False, "samples": 1, "ks": [1]},
        "name": "mine", "tracking": {"wandb": "disabled"},
    }  # fmt: skip
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        address = ray.get_runtime_context().gcs_address
        run = sdpo.train("livecodebench", profile="cpu", **options)
    finally:
        ray.shutdown()
    assert f"connecting to Ray at {address}" in capfd.readouterr().out
    assert (run.path, run.status) == (tmp_path / "mine", "finished")
    metrics = run.metrics()
    assert metrics.loc[metrics["learner/loss"].notna(), "step"].tolist() == [1, 2]
    assert len(run.rollouts([2])) == 4 * run.recipe.rollout.responses
    result = sdpo.evaluate(run.path, quiet=True)
    assert result.pass_at_k[1] == run.evaluations()[2, "held_out"].pass_at_k[1]
    assert capfd.readouterr().out == ""
