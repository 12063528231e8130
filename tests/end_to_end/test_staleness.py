"""What `rollout.staleness=1` promises: the tasks and seeds of the run's seed, and weights that differ but little."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdpo.config.paths import locate
from sdpo.tracking.rollouts import read_rollouts
from sdpo.training.trainer import Trainer
from tests.helpers.training import make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200), pytest.mark.slow]

STEPS = 6


async def test_two_runs_of_one_seed_differ_by_less_than_they_have_moved(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", f"run.steps={STEPS}", "rollout.staleness=1", "tracking.wandb=disabled")
    folders = [(await run(recipe, tmp_path / name, workers, learner_for, Trainer))[1] for name in ("one", "two")]
    for step in range(1, STEPS + 1):
        tasks, others = ([r["problem_id"] for r in read_rollouts(f.path / "rollouts", step)] for f in folders)
        assert tasks == others
    begun = load_file(f"{locate(recipe.model.path)}/model.safetensors")
    ends = [load_file(f.checkpoints / "last" / "policy" / "model.safetensors") for f in folders]
    moved = [distance(end, begun) for end in ends]
    spread = distance(*ends)
    print(f"moved {moved[0]:.3g} and {moved[1]:.3g}, apart {spread:.3g}")
    assert 0 < min(moved) and max(moved) < 1.5 * min(moved)
    assert spread < max(moved) / 4  # two unrelated ways of that length would be √2 times it apart
    rates = [[row["learner/grad_norm"] for row in f.metrics if "learner/loss" in row] for f in folders]
    assert rates[0][0] == rates[1][0]  # the first batch was sampled and learned from before anything could differ


def distance(weights, others):
    """Euclidean, over all weights that both have under one name."""
    shared = weights.keys() & others.keys()
    assert shared
    return float(np.sqrt(sum(np.square(weights[n].astype(np.float64) - others[n]).sum() for n in shared)))
