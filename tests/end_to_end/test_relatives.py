"""One real step of each relative, and of an algorithm from outside the package: Ray, vLLM, DeepSpeed on 2 ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpo.config.files import load_recipe
from sdpo.config.paths import PROJECT
from sdpo.tracking.rollouts import read_rollouts
from sdpo.training.trainer import Trainer
from sdpo.types import Sample, TeacherContext
from tests.helpers.training import COMMON, CheckedTrainer, make_recipe, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

SEQUENCE = (
    "environment.kind=studies.sequence:MinicodeSequence",
    "environment.families=[minicode,minicode-texts]",
)
ONE = ("run.steps=1", "tracking.wandb=disabled")


async def one_step(recipe, workers, learner_for, tmp_path, kind=CheckedTrainer):
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for, kind)
    [row] = [row for row in folder.metrics if "learner/loss" in row]
    assert np.isfinite(row["learner/loss"]) and row["learner/grad_norm"] > 0
    return row, read_rollouts(folder.path / "rollouts", 1), folder


async def test_srpo(workers, learner_for, tmp_path):
    row, rollouts, _ = await one_step(make_recipe("srpo", *ONE), workers, learner_for, tmp_path)
    for r in rollouts:
        assert (r["teacher_prompt"] is None) == r["passed"]  # every failure has feedback here
    assert 0 < row["train/taught_fraction"] <= 1


async def test_srpo_in_two_updates_per_batch(workers, learner_for, tmp_path):
    recipe = make_recipe("srpo", *ONE, "learner.updates_per_batch=2")
    row, *_ = await one_step(recipe, workers, learner_for, tmp_path)
    assert row["importance/policy_ratio"] > 0


async def test_opsd(workers, learner_for, tmp_path):
    row, rollouts, _ = await one_step(make_recipe("opsd", *ONE), workers, learner_for, tmp_path)
    assert row["train/taught_fraction"] == 1 and "train/pass_rate" not in row
    assert all("Solution:" in r["teacher_prompt"] and r["passed"] is None for r in rollouts)


async def test_sdft_on_families_in_sequence(workers, learner_for, tmp_path):
    recipe = make_recipe("sdft", *ONE, "run.steps=2", *SEQUENCE)
    _, folder = await run(recipe, tmp_path / "run", workers, learner_for)
    problems = [{r["problem_id"] for r in read_rollouts(folder.path / "rollouts", step)} for step in (1, 2)]
    assert all(name.startswith("minicode-0") for name in problems[0])
    assert all(name.startswith("minicode-texts-0") for name in problems[1])
    assert {f"eval/{t}_held_out/pass@1" for t in ("lists", "texts")} <= {key for row in folder.metrics for key in row}
    assert all(row["learner/grad_norm"] > 0 for row in folder.metrics if "learner/loss" in row)


async def test_sft(workers, learner_for, tmp_path):
    recipe = make_recipe("sft", *ONE, "rollout.responses=1")
    row, rollouts, _ = await one_step(recipe, workers, learner_for, tmp_path, Trainer)
    assert len(rollouts) == 4 and all(r["response"].startswith("```python") for r in rollouts)
    assert row["generations"] == 4 and "policy/kl_sampler" not in row


async def test_an_algorithm_from_outside_the_package(workers, learner_for, tmp_path, monkeypatch):
    folder = PROJECT / "docs" / "examples"
    monkeypatch.syspath_prepend(str(folder))
    recipe = load_recipe(folder / "agreement.yaml", "cpu", (*COMMON, *ONE))
    row, *_ = await one_step(recipe, workers, learner_for, tmp_path)
    assert row["train/taught_fraction"] > 0


async def test_what_assign_remembers_is_what_the_weight_hook_sees(workers, learner_for, tmp_path):
    recipe = make_recipe("sdpo", *ONE, "run.steps=4", "algorithm.name=tests.helpers.algorithms:Alternating")
    trainer, folder = await run(recipe, tmp_path / "run", workers, learner_for)
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert trainer.algorithm.batches == 4
    assert [row["learner/grad_norm"] > 0 for row in rows] == [False, True, False, True]


async def test_an_environment_that_is_not_code(workers, learner_for, tmp_path, monkeypatch):
    folder = PROJECT / "docs" / "examples"
    monkeypatch.syspath_prepend(str(folder))
    recipe = load_recipe(folder / "addition.yaml", "cpu", (*COMMON, "run.steps=2", "tracking.wandb=disabled"))
    _, run_folder = await run(recipe, tmp_path / "run", workers, learner_for)
    rows = [row for row in run_folder.metrics if "learner/loss" in row]
    assert len(rows) == 2 and all(row["learner/grad_norm"] > 0 for row in rows)
    labels = {"right", "wrong_number", "no_number"}
    for step, row in enumerate(rows, start=1):
        assert sum(value for key, value in row.items() if key.startswith("verdict/")) == 16
        assert {key.removeprefix("verdict/") for key in row if key.startswith("verdict/")} <= labels
        graded = read_rollouts(run_folder.path / "rollouts", step)
        assert row["train/pass_rate"] == np.mean([r["passed"] for r in graded])
        assert all("What is " in r["prompt"] and 0 <= r["reward"] <= 1 for r in graded)
        for r in graded:
            assert r["passed"] == (r["reward"] == 1) == (r["feedback"] is None)
            assert r["passed"] or r["feedback"] in r["teacher_prompt"]
        assert row["train/taught_fraction"] > 0
    measured = [row for row in run_folder.metrics if "eval/held_out/pass@1" in row]
    assert measured and measured[-1]["eval/held_out/problems"] == 32


async def test_a_ramp_reaches_the_learner_step_by_step(workers, learner_for, tmp_path):
    ramp = "distillation.ramp={start: 0, end: 1, steps: 1}"
    recipe = make_recipe("opsd", *ONE, "run.steps=2", "distillation.entry_clip=null", ramp)
    _, folder = await run(recipe, tmp_path / "run", workers, learner_for)
    rows = [row for row in folder.metrics if "learner/loss" in row]
    assert rows[0]["learner/loss"] == rows[0]["learner/grad_norm"] == 0
    assert rows[1]["learner/loss"] > 0 and rows[1]["learner/grad_norm"] > 0


async def test_a_weight_hook_sees_the_whole_batch_in_order_and_decides(workers, learner_for):
    learner = await learner_for(make_recipe("sdpo"))
    rng, seen = np.random.default_rng(0), []

    def hook(scored):
        seen.extend(scored)
        return [None if s.log_ratio is None else np.zeros(len(s.weight)) for s in scored]

    lengths = [5, 1, 9, 3, 7, 2, 8, 4]
    samples = [
        Sample((2, 3, 4), tuple(rng.integers(5, 60, n)), np.zeros(n, np.float32), teacher=taught(n) if n > 2 else None)
        for n in lengths
    ]
    groups = [samples[i : i + 2] for i in range(0, 8, 2)]
    plain = await learner.train(groups)
    learner.plan = replace(learner.plan, weight_hook=hook)
    weighed = await learner.train(groups)
    assert plain["learner/loss"] > 0 and weighed["learner/loss"] == 0 and weighed["learner/grad_norm"] == 0
    assert [len(s.entropy) for s in seen] == lengths  # rows of both ranks, put in order again
    assert [s.log_ratio is None for s in seen] == [n <= 2 for n in lengths]
    assert all(s.teacher_entropy.min() > 0 and s.advantages is None for s in seen if s.log_ratio is not None)


def taught(length: int) -> TeacherContext:
    return TeacherContext((9, 8, 7, 6), np.ones(length, np.float32))
