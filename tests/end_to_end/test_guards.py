"""Probes and rollbacks in whole runs, on real engines and ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdpo.training.checkpoints import Checkpoints
from sdpo.training.trainer import Trainer
from tests.helpers.training import CheckedTrainer, make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900), pytest.mark.slow]

FROZEN = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")
LIVE = ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null")


class ScoringTrainer(CheckedTrainer):
    """Scores the same tokens whenever the engines get other weights for a probe."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.scores = []

    async def _serve(self, teacher):
        await super()._serve(teacher)
        prompt = self.contexts.prompt(self.probe.tasks[0])
        self.scores.append((teacher, await self.pool.versions(), await self.pool.score(prompt, prompt[:8])))


def numbers(folder):
    """What training has computed, step by step."""
    keys = ("learner/loss", "train/pass_rate", "policy/entropy", "response/tokens")
    return [[row[key] for key in keys] for row in folder.metrics if "learner/loss" in row]


async def test_a_frozen_teacher_answers_with_its_own_weights(workers, learner_for, tmp_path):
    common = (*FROZEN, "learner.lr=5e-3")
    recipe = make_recipe("sdpo", *common, "probe.every=2", "probe.tasks=3")
    trainer, folder = await run(recipe, tmp_path / "probed", workers, learner_for, ScoringTrainer)
    assert trainer.checked == 3
    probed = [row["step"] for row in folder.metrics if "probe/gap" in row]
    assert probed == [1, 3]
    assert [(teacher, versions) for teacher, versions, _ in trainer.scores] == [
        (True, [-1]), (False, [1]), (True, [-3]), (False, [3]),
    ]  # fmt: skip
    first, student, later, learned = [scores for *_, scores in trainer.scores]
    np.testing.assert_array_equal(first, student)
    np.testing.assert_array_equal(first, later)  # the initial policy's
    assert np.abs(learned - later).max() > 1e-3
    plain = make_recipe("sdpo", *common, "probe.every=0")
    _, unprobed = await run(plain, tmp_path / "plain", workers, learner_for)
    assert numbers(folder) == numbers(unprobed)
    assert not [key for row in unprobed.metrics for key in row if key.startswith("probe/")]


@pytest.mark.parametrize("ahead", [("rollout.staleness=1",), ("rollout.staleness=2", "rollout.mode=continuous")])
async def test_a_teacher_is_probed_and_refreshed_between_what_is_sampled_ahead(ahead, workers, learner_for, tmp_path):
    probed = ("run.steps=4", "probe.every=2", "probe.tasks=2", "teacher.refresh=probe")
    recipe = make_recipe("sdpo", *FROZEN, *ahead, *probed, "learner.lr=1e-5")  # as good as the teacher
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, Trainer)
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["step"] for row in rows if "probe/gap" in row] == [1, 3]
    assert all(row["policy/sampler_gap_max"] < 0.1 for row in rows)  # none was sampled from the teacher
    assert [row["teacher/age"] for row in rows] in ([0, 1, 0, 1], [0, 1, 2, 3])
    assert trainer.state.teacher_step == 3 - rows[-1]["teacher/age"]


async def test_a_run_that_breaks_goes_back_and_then_stops(workers, learner_for, tmp_path):
    """With steps that are far too large nothing ends any more: seen after five steps, and once more."""
    broken = ("learner.lr=0.3", "run.steps=7", "guard.action=rollback", "guard.rollbacks=1", "probe.every=0")
    recipe = make_recipe("sdpo", *LIVE, *broken)
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, Trainer, finishes=False)
    assert "end at the token limit" in trainer.guard.stopped
    events = json.loads((folder.path / "run.json").read_text())["events"]
    assert {event["part"] for event in events} == {"guard"}
    [rollback] = [event["action"] for event in events if event["action"].startswith("rollback")]
    assert rollback == "rollback 1 of 1: back to step 0, the teacher moves no more"
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, trainer.state.step + 1))
    assert {row["guard/rollbacks"] for row in rows} == {1}
    state = Checkpoints.state(Checkpoints(folder.checkpoints, 1).last())
    assert (state.step, state.rollbacks) == (trainer.state.step, 1)

    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, Trainer)
    assert trainer.state.rollbacks == 1 and len(folder.metrics) >= 7
    frozen = [rank.__ray_call__.remote(lambda self: self.worker.teacher.frozen) for rank in trainer.learner.ranks]
    assert [await each for each in frozen] == [True, True]
    assert json.loads((folder.path / "run.json").read_text())["events"] == events  # nothing is told again
