"""A continuous run with a real engine and learner: how much its tokens lag, and what a run that goes on makes again."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from sdpo.tracking.rollouts import read_rollouts
from sdpo.training.trainer import Trainer
from tests.helpers.training import make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1200), pytest.mark.slow]

STEPS, BOUND = 6, 3
OPTIONS = (f"run.steps={STEPS}", "rollout.mode=continuous", f"rollout.staleness={BOUND}", "tracking.wandb=disabled")


class WatchedTrainer(Trainer):
    """Notes by how much the tokens lag that a step learned from."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.lags: list[set[int]] = []

    def _record(self, groups, *learned):
        super()._record(groups, *learned)
        turns = [turn for group in groups for turn in group.turns]
        for turn in turns:  # every token has a version and a log-prob
            ends = [0, *(span.end for span in turn.versions)]
            assert [span.start for span in turn.versions] == ends[:-1] and ends[-1] == len(turn.response_ids)
            assert len(turn.sampler_log_probs) == len(turn.response_ids)
        self.lags.append({self.state.step - span.version for turn in turns for span in turn.versions})


class BrokenTrainer(WatchedTrainer):
    """Falls over behind its second step's checkpoint."""

    async def save(self, best):
        await super().save(best)
        if self.state.step == 2:
            raise ConnectionAbortedError


def learned_from(folder) -> Counter:
    """Tasks, by the number of responses."""
    tables = [read_rollouts(folder.path / "rollouts", step) for step in range(1, STEPS + 1)]
    return Counter(row["problem_id"] for table in tables for row in table)


async def test_a_continuous_run_learns_from_all_that_it_begins_within_the_bound(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", *OPTIONS)
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, WatchedTrainer)
    numbers = range(STEPS * recipe.run.questions)
    drawn = Counter(trainer.batches.task(number).id for number in numbers for _ in range(recipe.rollout.responses))
    assert learned_from(folder) == drawn
    assert all(lags <= set(range(BOUND + 1)) for lags in trainer.lags) and trainer.lags[0] == {0}
    assert max(set.union(*trainer.lags)) >= 1
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["response/token_staleness_max"] for row in rows] == [max(lags) for lags in trainer.lags]
    assert all(0 <= row["response/token_staleness_mean"] <= row["response/token_staleness_max"] for row in rows)
    assert rows[0]["response/unfinished"] > 0 == rows[-1]["response/unfinished"]
    assert all(row["importance/sampler_weight"] == pytest.approx(1, abs=0.2) for row in rows)
    assert folder.info.rollouts_unfinished == 0


async def test_a_continuous_run_that_broke_off_makes_what_was_under_way_again(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", *OPTIONS)
    with pytest.raises(ConnectionAbortedError):
        await run(recipe, tmp_path / "run", workers, learner_for, BrokenTrainer)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    [state] = (tmp_path / "run" / "checkpoints").glob("step-000002/trainer.json")
    left = json.loads(state.read_text())["unlearned"]
    assert 0 < len(left) * recipe.rollout.responses <= info["rollouts_unfinished"]  # more began while it was written
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, WatchedTrainer)
    numbers = range(STEPS * recipe.run.questions)
    drawn = Counter(trainer.batches.task(number).id for number in numbers for _ in range(recipe.rollout.responses))
    assert learned_from(folder) == drawn and set.union(*trainer.lags) <= set(range(BOUND + 1))
    assert folder.info.rollouts_unfinished == 0
