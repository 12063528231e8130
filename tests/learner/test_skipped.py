"""An update whose gradient is not finite changes nothing, in every mode and on every rank."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from sdpo.algorithms import build_algorithm
from sdpo.learner.replica import stored
from sdpo.learner.skipped import TooManySkipped
from tests.learner.tiny import InProcess, dealt, named_weights, recipe, samples

MODES = [(0, "float32"), (1, "float32"), (2, "float32"), (3, "float32"), (2, "bfloat16"), (3, "bfloat16")]
OVERRIDES = (
    "algorithm.mix=0.5", "teacher.rate=0.3", "learner.lr=1e-3", "learner.schedule=linear", "distillation.alpha=1",
    "distillation.advantage_clip_factor=1", "learner.updates_per_batch=1",
)  # fmt: skip
# What is made of the rows of a good batch.
BAD = {
    "an infinite advantage": lambda row: replace(row, advantages=row.advantages + np.float32(np.inf)),
    "an infinite distillation weight": lambda row: replace(
        row, distillation_weight=np.full_like(row.distillation_weight, np.inf)
    ),
    "advantages and weights that overflow": lambda row: replace(
        row, advantages=np.full_like(row.advantages, 1e30), policy_gradient_weight=np.full_like(row.advantages, 1e30)
    ),
    "unknown log-probs of the sampler": lambda row: replace(
        row, sampler_log_probs=np.full_like(row.sampler_log_probs, np.nan)
    ),
}


def settings_of(model, stage: int, dtype: str, *more: str):
    return recipe(model, "sdpo", *OVERRIDES, f"learner.zero_stage={stage}", f"model.dtype={dtype}", *more)


def state(worker) -> dict[str, torch.Tensor]:
    """Weights, moments and step counts, the schedule, the whole teacher, the running mean of advantages."""
    optimizer = getattr(worker.engine.optimizer, "optimizer", worker.engine.optimizer)
    found = named_weights(worker)
    for i, values in enumerate(optimizer.state.values()):
        found |= {f"optimiser {i} {name}": torch.as_tensor(value).clone() for name, value in values.items()}
    for i, group in enumerate(optimizer.param_groups):  # ZeRO's master weights
        found |= {f"master {i} {j}": p.detach().clone() for j, p in enumerate(group["params"])}
    found |= {f"teacher {name}": weight.clone() for name, weight in worker.teacher.average.average.items()}
    found |= {f"policy of the teacher {n}": stored(p).clone()
              for n, p in worker.teacher.average.policy.named_parameters()}  # fmt: skip
    found["schedule"] = torch.tensor([worker.engine.lr_scheduler.last_epoch, *worker.engine.get_lr()])
    found["mean advantage"] = torch.tensor(worker.advantage_clip.mean or 0.0)
    return found


def step(worker, micro_batches) -> float:
    skipped = worker.update(micro_batches)[1]["learner/skipped_updates"]
    worker.finish_batch()
    return skipped


def check_skips(worker, good, bad) -> None:
    assert step(worker, good) == 0
    before = state(worker)
    assert step(worker, bad) == 1
    after = state(worker)
    assert before.keys() == after.keys() and len(before) > 30
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
        assert torch.isfinite(value).all(), name


def spoilt(micro_batches, how):
    return [[how(row) for row in rows] for rows in micro_batches]


@pytest.mark.parametrize("stage, dtype", MODES)
def test_a_gradient_that_is_not_finite_changes_nothing(model, start, stage, dtype):
    """And the next update is the one that would have come without it, bit for bit."""
    settings = settings_of(model, stage, dtype)
    worker, without = start(settings), start(settings)
    [good] = dealt(settings, samples(8), tokens=60)
    assert len(good) > 1
    for how in BAD.values():
        check_skips(worker, good, [*spoilt(good[:1], how), *good[1:]])
        assert step(without, good) == 0
    assert step(worker, good) == step(without, good) == 0
    expected, found = state(without), state(worker)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("stage, dtype", [(0, "float32"), (2, "bfloat16")])
def test_a_weight_too_large_for_finite_log_probs(model, start, stage, dtype):
    settings = settings_of(model, stage, dtype)
    worker = start(settings)
    with torch.no_grad():
        worker.student.model.get_input_embeddings().weight[:] = 3e38
    [rows] = dealt(settings, samples(8))
    before = state(worker)
    assert step(worker, rows) == 1
    for name, value in before.items():
        assert torch.equal(value, state(worker)[name]), name


def test_a_few_bad_updates_are_counted_and_many_in_a_row_stop(model, start):
    import asyncio

    settings = settings_of(model, 0, "float32", "learner.updates_per_batch=2", "learner.max_skipped=3")
    worker = start(settings)
    learner = InProcess(settings, worker)

    def batch(*bad: int):
        groups = [samples(4, seed=i) for i in range(4)]
        for i in bad:
            groups[i][1].advantages[0] = np.nan
        return groups

    train = lambda *bad: asyncio.run(learner.train(batch(*bad)))  # noqa: E731
    fine, half = train(), train(0)
    assert (fine["learner/skipped_updates"], half["learner/skipped_updates"]) == (0, 1)
    assert all(np.isfinite(value) for value in half.values())  # the bad half belongs to no mean
    train(2)  # the first of a row of three
    before = state(worker)
    with pytest.raises(TooManySkipped) as stop:
        train(0, 3)
    for name, value in state(worker).items():
        assert torch.equal(value, before[name]), name
    assert (stop.value.in_a_row, stop.value.update) == (3, 2)
    culprit = samples(4, seed=3)[1]
    assert "advantages is nan at token 0" in stop.value.source and str(culprit.response_ids[0]) in stop.value.source
    text = stop.value.lines(lambda ids: " ".join(map(str, ids)))
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 8 and lines[5]["response_ids"] == list(culprit.response_ids)
    assert np.isnan(lines[5]["advantages"][0]) and lines[5]["prompt"] == " ".join(map(str, culprit.prompt_ids))


def test_steps_that_are_too_large_end_in_a_stop_with_finite_weights(model, start):
    import asyncio

    settings = settings_of(model, 0, "float32", "learner.lr=1e30")
    worker = start(settings)
    learner = InProcess(settings, worker)
    with pytest.raises(TooManySkipped) as stop:
        for seed in range(20):
            asyncio.run(learner.train([samples(4, seed=seed) for _ in range(4)]))
    assert stop.value.source.startswith("the gradient of ")  # of log-probs that are finite
    assert all(torch.isfinite(value).all() for value in state(worker).values())


def process(rank: int, port: int, model: Path, modes) -> None:
    import os

    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    from sdpo.learner.worker import LearnerWorker

    for stage, dtype in modes:
        settings = settings_of(model, stage, dtype, "learner.ranks=2")
        worker = LearnerWorker(settings, build_algorithm(settings).plan, rank)
        worker.start(("127.0.0.1", port))
        good = dealt(settings, samples(13), 2, tokens=120)[rank]
        bad = spoilt(good, BAD["an infinite advantage"]) if rank == 1 else good
        check_skips(worker, good, bad)
        found = worker.first_not_finite(bad)
        assert found.startswith("advantages is inf at token 0")  # on both, though the gradient is bad on both as well
        assert step(worker, good) == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("modes", [MODES[:1], MODES[1:]], ids=["zero0", "others"])
def test_what_is_not_finite_on_one_rank_is_skipped_on_both(model, modes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, model, modes), nprocs=2)
