"""A teacher that gets other weights during a run: which it has then, which engines would get, what checkpoints hold."""

from __future__ import annotations

import pytest
import torch

from sdpo.learner import export
from tests.learner.test_learner import weights
from tests.learner.tiny import dealt, recipe, samples

KINDS = {
    "ema": ("teacher.rate=0.5",),
    "frozen": ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null"),
    "live": ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null"),
    "trust_region": ("teacher.kind=trust_region", "teacher.rate=0.3", "teacher.clock=null"),
}
ADAPTER = ("model.adapter={rank: 4}",)


def settings_of(model, kind, *overrides):
    return recipe(model, "sdpo", "guard.action=rollback", "learner.lr=1e-2", *KINDS[kind], *overrides)


def learn(worker, steps=2):
    [micro_batches] = dealt(worker.recipe, samples(8))
    for _ in range(steps):
        loss = worker.update(micro_batches)[0].plain["learner/loss"]
        worker.finish_batch()
    return loss


def sampled(worker):
    """What the engines would get to sample from the teacher, under the names of a checkpoint."""
    with worker.teacher.weights(worker.student) as policy:
        return {name: tensor.clone() for name, tensor in export.checkpoint_tensors(policy.model)}


def exported(worker):
    return {name: tensor.clone() for name, tensor in export.checkpoint_tensors(worker.student.model)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize("adapter", [(), pytest.param(ADAPTER, marks=pytest.mark.slow)], ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_whose_weights_answer_a_probe(model, start, kind, adapter):
    worker = start(settings_of(model, kind, *adapter))
    initial = exported(worker)
    assert same(sampled(worker), initial)
    learn(worker)
    student = exported(worker)
    assert not same(student, initial)
    found = sampled(worker)
    assert same(found, student) == (kind == "live")
    assert same(found, initial) == (kind in ("frozen", "trust_region"))
    assert same(exported(worker), student)  # the student's own are back


@pytest.mark.parametrize("kind", KINDS)
def test_a_refreshed_teacher_is_the_student_of_that_moment(model, start, kind):
    worker = start(settings_of(model, kind))
    learn(worker)
    worker.replace_teacher("refresh")
    then = exported(worker)
    assert same(sampled(worker), then)
    learn(worker)
    assert same(sampled(worker), then) == (kind in ("frozen", "trust_region"))


@pytest.mark.parametrize("adapter", [(), pytest.param(ADAPTER, marks=pytest.mark.slow)], ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", ["ema", "live", "trust_region"])
def test_a_frozen_teacher_moves_no_more_and_stays_so(model, start, tmp_path, kind, adapter):
    settings = settings_of(model, kind, *adapter)
    worker = start(settings)
    learn(worker)
    before = sampled(worker)
    worker.replace_teacher("freeze")
    assert same(sampled(worker), before)
    learn(worker)
    assert same(sampled(worker), before)
    worker.checkpointing.save(str(tmp_path))
    resumed = start(settings)
    assert not resumed.teacher.frozen
    resumed.checkpointing.load(str(tmp_path))
    assert same(sampled(resumed), before) and resumed.teacher.frozen
    assert learn(resumed) == learn(worker)
    assert same(sampled(resumed), before)


def test_a_live_teacher_that_is_frozen_is_a_frozen_one(model, start):
    """The same losses from then on, bit for bit."""
    live, frozen = start(settings_of(model, "live")), start(recipe(model, "sdpo", "learner.lr=1e-2", *KINDS["frozen"]))
    live.replace_teacher("freeze")
    assert [learn(live, 1) for _ in range(3)] == [learn(frozen, 1) for _ in range(3)]


def test_a_teacher_that_cannot_be_replaced_is_held_as_before(model, start):
    worker = start(recipe(model, "sdpo", *KINDS["frozen"]))
    assert worker.teacher.average is None and worker.teacher.initial is not None
    initial = weights(worker)
    learn(worker, 1)
    assert same(dict(worker.teacher.initial.policy.model.named_parameters()), initial)
