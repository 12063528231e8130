"""The whole loop on real Ray, vLLM and DeepSpeed: 2 learner ranks, 1 engine, the bundled problems and policy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sdpo.checkpoints.manifest import verify
from sdpo.errors import UserError
from sdpo.tracking import RunFolder
from sdpo.tracking.rollouts import read_rollouts
from sdpo.training.trainer import Trainer
from sdpo.types import Sample, TeacherContext
from studies.faults.compare import different_tensors
from tests.helpers.training import SAME_TOKENS, CheckedTrainer, make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

RUNS = {
    "grpo": ("grpo",),
    "grpo with reference, two updates": (
        "grpo", "reference={coefficient: 0.01}", "learner.updates_per_batch=2", "policy_gradient.entropy_bonus=0.001",
    ),
    "sdpo ema": ("sdpo", "distillation.alpha=0.5"),
    "sdpo ema per update": ("sdpo", "teacher.clock=update", "learner.updates_per_batch=2", "distillation.is_clip=2"),
    "sdpo frozen, zero 2": (
        "sdpo", "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "learner.zero_stage=2",
    ),
    "sdpo live": ("sdpo", "teacher.kind=live", "teacher.rate=null", "teacher.clock=null"),
    "sdpo trust region": ("sdpo", "teacher.kind=trust_region", "teacher.rate=0.1", "teacher.clock=null"),
    "mix": ("sdpo", "algorithm.mix=0.5", "tracking.sinks=[wandb,tensorboard,csv]", "tracking.shown_rollouts=2"),
}  # fmt: skip


QUICK = ("grpo", "grpo with reference, two updates", "sdpo ema", "mix", "ema")  # the others are in the slow tier


def tiered(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", tiered(RUNS))
async def test_a_run_of_three_steps(name, workers, learner_for, tmp_path):
    recipe = make_recipe(*RUNS[name])
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for)
    assert trainer.checked == 3
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["generations"] for row in rows] == [16, 32, 48]
    for row in rows:
        assert np.isfinite(row["learner/loss"])
        assert row["policy/sampler_gap_max"] < SAME_TOKENS  # on-policy: the sampler is the policy
        assert sum(v for k, v in row.items() if k.startswith("verdict/")) == 16
    # A step in which no group has a success teaches GRPO nothing; three such steps in a row would be another matter.
    assert max(row["learner/grad_norm"] for row in rows) > 0
    assert any("eval/held_out/pass@1" in row for row in folder.metrics)
    for row in read_rollouts(folder.rollouts, 3):  # all of it fits the budget of tokens
        assert row["token_ids"] and "".join(row["tokens"]).startswith(row["response"])
        assert (row["teacher_log_probs"] is None) == (row["teacher_prompt"] is None)
        if recipe.learner.updates_per_batch == 1:
            np.testing.assert_allclose(row["log_probs"], row["sampler_log_probs"], atol=SAME_TOKENS)
    assert sorted(p.name for p in (folder.path / "rollouts").iterdir()) == [f"step-{i:06d}.parquet" for i in (1, 2, 3)]
    assert (folder.checkpoints / "last" / "policy" / "model.safetensors").is_file()
    written = {"wandb": "wandb", "tensorboard": "tensorboard", "csv": "metrics.csv"}
    assert {sink for sink, name in written.items() if (folder.path / name).exists()} == set(recipe.tracking.sinks)


@pytest.mark.parametrize("kind", tiered(["ema", "frozen", "live", "trust_region"]))
async def test_the_loss_is_zero_when_teacher_and_student_see_the_same(kind, workers, learner_for, tmp_path):
    rate = "teacher.rate=0.1" if kind in ("ema", "trust_region") else "teacher.rate=null"
    clock = "teacher.clock=batch" if kind == "ema" else "teacher.clock=null"
    recipe = make_recipe("sdpo", "run.steps=1", f"teacher.kind={kind}", rate, clock)
    trainer, _ = await run(recipe, tmp_path / "run", workers, learner_for)
    learner = await learner_for(recipe)
    samples = [
        [
            Sample(
                t.prompt_ids,
                t.response_ids,
                t.sampler_log_probs,
                teacher=TeacherContext(t.prompt_ids, np.ones(len(t.response_ids), np.float32)),
            )
            for t in (rollout.last for rollout in group.rollouts)
        ]
        for group in trainer.seen
    ]
    metrics = await learner.train(samples)
    assert abs(metrics["distillation/loss"]) < 1e-6 and abs(metrics["distillation/teacher_gain"]) < 1e-6


class StaleTrainer(CheckedTrainer):
    """Notes how many versions behind the learner each response began."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.lags = []

    async def step(self):
        await Trainer.step(self)
        assert await self.pool.versions() == [self.state.step + 1]
        self.lags.append({self.state.step - r.last.policy_version for g in self.seen for r in g.rollouts})


async def test_generation_runs_ahead_of_learning_by_no_more_than_the_bound(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", "run.steps=4", "rollout.staleness=1")
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, StaleTrainer)
    assert trainer.lags[0] == {0} and set.union(*trainer.lags[1:]) == {1}
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["response/staleness_mean"] for row in rows] == [0, 1, 1, 1]
    assert all(0 < row["utilization/learner"] < 1.05 and 0 <= row["utilization/engines"] < 1.05 for row in rows)
    assert sum(row["utilization/engines"] for row in rows[:-1]) > 0  # in the last step there is nothing left to sample
    assert all(row[f"memory/{part}_mb"] > 100 for row in rows for part in ("engines", "learner"))
    # The second batch was sampled with weights one update older than those that learned from it.
    assert rows[0]["policy/sampler_gap_max"] < SAME_TOKENS < rows[1]["policy/sampler_gap_max"]


class OneAfterTheOther(CheckedTrainer):
    """Begins no batch before the evaluation is over."""

    def _begin_at(self, checkpoint):
        super()._begin_at(checkpoint)
        self.batches.begin = lambda step: None


async def test_what_is_sampled_beside_an_evaluation_is_what_would_be_sampled_after_it(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", "evaluation.at_start=true", "evaluation.every=1", "evaluation.training_problems=true")
    runs = [
        await run(recipe, tmp_path / kind.__name__, workers, learner_for, kind)
        for kind in (CheckedTrainer, OneAfterTheOther)
    ]
    beside, after = ([strip(row) for row in folder.metrics] for _, folder in runs)
    assert len(beside) == 7 and beside == after
    for step in (1, 2, 3):
        sampled = [[row["token_ids"] for row in read_rollouts(folder.rollouts, step)] for _, folder in runs]
        assert sampled[0] == sampled[1]


def strip(row):
    """What does not depend on the clock or on the machine's memory."""
    clocked = ("time", "wall_clock_s", "memory", "utilization", "throughput", "weights/pause_s")
    return {key: value for key, value in row.items() if not key.startswith(clocked)}


class StoppedTrainer(CheckedTrainer):
    """Falls over after its second step, behind the checkpoint."""

    async def save(self, best):
        await super().save(best)
        if self.state.step == 2:
            raise ConnectionAbortedError


@pytest.mark.parametrize("algorithm", ["sdpo", pytest.param("drift", marks=pytest.mark.slow)])
async def test_a_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(algorithm, workers, learner_for, tmp_path):
    recipe = make_recipe(algorithm, "run.steps=4", "evaluation.at_start=false")
    whole, folder = await run(recipe, tmp_path / "whole", workers, learner_for)
    with pytest.raises(ConnectionAbortedError):
        await run(recipe, tmp_path / "broken", workers, learner_for, StoppedTrainer)
    rows = tmp_path / "broken" / "metrics.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))  # the checkpoint has it too
    resumed, broken = await run(recipe, tmp_path / "broken", workers, learner_for)
    assert resumed.checked == 2 and resumed.state.generations == whole.state.generations
    assert resumed.algorithm.state_dict() == whole.algorithm.state_dict()
    for a, b in zip(folder.metrics, broken.metrics, strict=True):
        same = ("step", "generations", "train/pass_rate", "learner/loss", "distillation/loss", "eval/held_out/pass@1")
        assert {k: pytest.approx(a[k], abs=1e-5) for k in same if k in a} == {k: b[k] for k in same if k in b}


async def test_checkpoints_written_while_training_goes_on_are_the_same(workers, learner_for, tmp_path):
    folders = []
    for asynchronous in ("false", "true"):
        options = ("run.checkpoint_every=1", "run.keep_checkpoints=3", f"run.asynchronous_checkpoints={asynchronous}")
        _, folder = await run(make_recipe("sdpo", *options), tmp_path / asynchronous, workers, learner_for)
        folders.append(folder.checkpoints)
    for step in ("step-000001", "step-000002", "step-000003"):
        assert list(different_tensors(folders[0] / step, folders[1] / step)) == []
        verify(folders[1] / step)
    assert (folders[1] / "last").resolve().name == step


async def test_steps_that_are_too_large_stop_the_run_with_the_batch_saved(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", "run.steps=8", "learner.lr=1e6", "learner.max_skipped=2")
    with pytest.raises(UserError, match="The last 2 updates .* were skipped") as stop:
        await run(recipe, tmp_path / "run", workers, learner_for, Trainer)
    [path] = (tmp_path / "run" / "skipped").iterdir()
    assert f"python -m json.tool --json-lines {path}" in str(stop.value)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 16 and {type(line["prompt"]) for line in lines} == {str}
    with RunFolder(tmp_path / "run") as folder:
        assert folder.info.status == "failed" and "were skipped" in folder.info.reason
        assert sum(row.get("learner/skipped_updates", 0) for row in folder.metrics) == 1  # the second stopped the run


class StruckPool:
    """An engine pool whose fifth group has a response with NaN as its engine's log-probs."""

    def __init__(self, pool):
        self.pool, self.groups = pool, 0

    def __getattr__(self, name):
        return getattr(self.pool, name)

    def generate(self, *given, **named):
        sampled = self.pool.generate(*given, **named)
        self.groups += 1
        return [self._spoilt(sampled[0]), *sampled[1:]] if self.groups == 5 else sampled

    async def _spoilt(self, sampled):
        turn = await sampled
        return replace(turn, sampler_log_probs=np.append(turn.sampler_log_probs[:-1], np.float32(np.nan)))


class StruckTrainer(Trainer):
    """One response of step 2 has log-probs that are NaN; after it a moment of the optimiser is."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.generation.pool = StruckPool(self.pool)

    async def save(self, best):
        if self.state.step == 2:

            def strike(self):
                weight = next(iter(self.worker.held.optimized.held()))
                weight.views["exp_avg_sq"].view(-1)[0] = np.nan

            await self.learner.ranks[1].__ray_call__.remote(strike)
        await super().save(best)


async def test_what_is_not_finite_is_left_out_of_training_and_never_saved(workers, learner_for, tmp_path, capsys):
    recipe = make_recipe("sdpo", "run.checkpoint_every=1", "learner.zero_stage=2", "algorithm.mix=0.5")
    with pytest.raises(UserError, match="exp_avg_sq of the weight .* repeats the run from step 1") as stop:
        await run(recipe, tmp_path / "run", workers, learner_for, StruckTrainer)
    assert "after step 2 is not saved" in str(stop.value)
    folder = RunFolder(tmp_path / "run")
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == ["last", "step-000001"]
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert [row["response/not_finite"] for row in rows] == [0, 1]
    assert all(np.isfinite(row[key]) for row in rows for key in ("learner/loss", "policy/sampler_gap_max"))
    assert rows[1]["learner/skipped_updates"] == 0
    warned = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len([line for line in warned if "1 of 16 responses have log-probs that are not finite" in line]) == 1


async def test_weights_that_overflow_in_a_step_reach_neither_engines_nor_disk(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", "learner.lr=1e39", "run.checkpoint_every=1")
    with pytest.raises(UserError, match="step 1 had a finite gradient and left weights that are not finite") as stop:
        await run(recipe, tmp_path / "run", workers, learner_for, Trainer)
    assert "learner.lr (1e+39)" in str(stop.value) and "repeats the run from its beginning" in str(stop.value)
    assert await workers[0].versions() == [1]
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not [row for row in RunFolder(tmp_path / "run").metrics if "learner/loss" in row]
