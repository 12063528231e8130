"""A teacher of its own: losses, gradients and weights as with the learner's, and who has which weights when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from transformers import AutoModelForCausalLM

from sdpo.learner.export import named_state
from sdpo.learner.model import LossHead
from sdpo.learner.scorer import Head, Scorer
from tests.learner.test_ranks import free_port, read
from tests.learner.test_replaced_teacher import exported, same, sampled
from tests.learner.tiny import (
    VOCABULARY,
    dealt,
    loss_and_gradient,
    make_model,
    named_weights,
    recipe,
    reference_log_probs,
    samples,
)

OWN = ("teacher.placement=own",)
FROZEN = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")
TRUST = ("teacher.kind=trust_region", "teacher.rate=0.3", "teacher.clock=null")
BLEND = ("distillation.blend={largest: 0.5, beta: 10}", "teacher.rate=0.3")
SEQUENCE = ("distillation.level=sequence", "distillation.alpha=1", "teacher.rate=0.3")
ADAPTER = ("model.adapter={rank: 4}", "teacher.rate=0.3", "learner.lr=1e-2")
KINDS = {
    "frozen": FROZEN,
    "ema": ("teacher.rate=0.3",),
    "trust region": TRUST,
    "blend": BLEND,
    "sequence": SEQUENCE,
    "top-K with tail": (*FROZEN, "distillation.top_k=20", "distillation.tail=true", "distillation.alpha=1"),
    "adapter": ADAPTER,
}


def scored(scorer: Scorer, micro_batches, blends: bool):
    """The rows as a rank gets them: with what the teacher says of those that have a context."""

    def given(row):
        if row.teacher_prompt_ids is None:
            return row
        prompts = (row.teacher_prompt_ids, row.prompt_ids) if blends else (row.teacher_prompt_ids,)
        told, *untold = scorer.score([(prompt, row.response_ids) for prompt in prompts])
        return replace(row, told=told, untold=untold[0] if untold else None)

    return [[given(row) for row in rows] for rows in micro_batches]


def teach(scorer: Scorer, worker) -> None:
    """What the learner sends after a batch, without Ray."""
    if worker.teacher.average is not None:
        scorer.load([(name, tensor.clone()) for name, tensor in worker.teacher.average.full()])
    worker.take_head(scorer.head())


def distance(ours: dict, theirs: dict) -> float:
    """Of two gradients, as a share of their length."""
    a, b = (torch.cat([each[name].flatten().double() for name in theirs]) for each in (ours, theirs))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_with_the_teacher_inside(model, start, tmp_path, kind):
    """At the start, and after updates by which student and moving average have moved."""
    more = ("learner.lr=1e-3", *KINDS[kind])
    inside, outside = (start(recipe(model, "sdpo", *more, *own)) for own in ((), OWN))
    scorer = Scorer(outside.recipe)
    [micro_batches] = dealt(inside.recipe, samples(9), tokens=120)
    losses = []
    for updates in (0, 2):
        for _ in range(updates):
            inside.update(micro_batches)
            inside.finish_batch()
        inside.checkpointing.save(str(tmp_path / str(updates)))
        outside.load(str(tmp_path / str(updates)))
        teach(scorer, outside)
        given = scored(scorer, micro_batches, blends=kind == "blend")
        (ours, our_gradient), (theirs, their_gradient) = (
            loss_and_gradient(worker, rows) for worker, rows in ((outside, given), (inside, micro_batches))
        )
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
        assert distance(our_gradient, their_gradient) < 1e-6
        losses.append(ours)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["ema", "adapter"])
def test_what_is_kept_follows_the_student(model, start, kind):
    settings = recipe(model, "sdpo", "learner.lr=1e-3", *KINDS[kind], *OWN)
    worker, scorer = start(settings), Scorer(settings)
    [micro_batches] = dealt(settings, samples(8))
    expected = {name: p.detach().clone() for name, p in worker.student.trained()}
    for _ in range(2):
        teach(scorer, worker)
        worker.update(scored(scorer, micro_batches, False))
        assert worker.finish_batch()
        expected = {n: 0.7 * expected[n] + 0.3 * p.detach() for n, p in worker.student.trained()}
    teach(scorer, worker)
    assert scorer.moving.keys() == expected.keys()
    for name, weight in scorer.moving.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-6, atol=1e-7)


def test_a_bf16_average_is_sent_as_models_compute_with_it(model, start):
    settings = recipe(model, "sdpo", *OWN, "teacher.rate=0.5", "model.dtype=bfloat16", "learner.zero_stage=2")
    worker, scorer = start(settings), Scorer(settings)
    [micro_batches] = dealt(settings, samples(8))
    teach(scorer, worker)
    worker.update(scored(scorer, micro_batches, False))
    assert worker.finish_batch()
    teach(scorer, worker)
    for name, average in worker.teacher.average.average.items():
        assert average.dtype == torch.float32
        assert torch.equal(scorer.moving[name], average.view_as(scorer.moving[name]).bfloat16()), name
    assert torch.equal(worker.teacher.head.weight, scorer.policy.head.weight)


def test_a_head_travels_with_all_that_makes_logits(model):
    head = Scorer(recipe(model, "sdpo", *OWN)).policy.head
    head.transformation, head.padding = head.transformation._replace(scale=0.5, softcap=20.0), range(4000, VOCABULARY)
    copy = Head.of(head).built(torch.float32, torch.device("cpu"), head)
    states = torch.randn(3, head.in_features)
    assert torch.equal(copy.logits(states, 0.7), head.logits(states, 0.7))


def test_the_learner_holds_no_second_model(model, start):
    worker = start(recipe(model, "sdpo", *OWN, *FROZEN, "probe.every=0"))
    assert worker.teacher.average is None and worker.teacher.initial is None
    assert not worker.finish_batch()  # nothing to be sent


def test_a_bigger_model_teaches_what_it_says_in_float64(model, start, double, tmp_path):
    bigger = make_model(tmp_path / "bigger", tied=False, hidden_size=48, num_hidden_layers=3, intermediate_size=96)
    settings = recipe(
        model, "sdpo", *OWN, *FROZEN, f"teacher.model={bigger}", "probe.every=0", "distillation.alpha=0",
        "distillation.sampler_threshold=null", "rollout.temperature=1.3", "model.adapter={rank: 4}",
    )  # fmt: skip
    assert settings.of_teacher().model.adapter is None
    worker, scorer, batch = start(settings), Scorer(settings.of_teacher()), samples(7)
    teach(scorer, worker)
    [micro_batches] = dealt(settings, batch)
    loss, _ = loss_and_gradient(worker, scored(scorer, micro_batches, False))
    theirs = AutoModelForCausalLM.from_pretrained(bigger, dtype=torch.float64)
    terms = []
    for sample in batch:
        if sample.teacher is not None:
            p = reference_log_probs(double, sample, 1.3)
            q = reference_log_probs(theirs, sample, 1.3, sample.teacher.prompt_ids)
            terms.append((q.exp() * (q - p)).sum(-1))
    assert loss == pytest.approx(torch.cat(terms).mean().item(), rel=1e-5)


@pytest.mark.parametrize("rows", [VOCABULARY - 3, VOCABULARY + 61])
def test_a_vocabulary_may_be_padded_in_another_way(model, rows):
    """What pads it is no token, and has no probability."""
    head = Scorer(recipe(model, "sdpo", *OWN)).policy.head
    students = LossHead(head.in_features, rows, bias=False, device="meta")
    if rows > VOCABULARY:
        with pytest.raises(ValueError, match=f"{VOCABULARY} entries, the student's {rows}"):
            Head.of(head).built(torch.float32, torch.device("cpu"), students)
    tokens = VOCABULARY - 5
    head.padding, students.padding = range(tokens, VOCABULARY), range(tokens, rows)
    built = Head.of(head).built(torch.float32, torch.device("cpu"), students)
    states = torch.randn(3, head.in_features)
    ours, theirs = built.logits(states, 0.7).softmax(-1), head.logits(states, 0.7).softmax(-1)
    assert ours.shape == (3, rows) and ours[:, tokens:].count_nonzero() == 0
    assert torch.equal(ours[:, :tokens], theirs[:, :tokens])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["ema", "trust region"])
def test_three_updates_under_every_stage(model, start, kind, stage):
    """Loss and gradient norm, while rounding moves the weights apart, and the weights after that."""
    common = ("learner.lr=1e-3", f"learner.zero_stage={stage}", *KINDS[kind])
    outside = recipe(model, "sdpo", *common, *OWN)
    scorer = Scorer(outside)  # before ZeRO-3 begins to shard what this process loads
    found, ends = [], []
    for settings in (recipe(model, "sdpo", *common), outside):
        worker = start(settings)
        [micro_batches] = dealt(settings, samples(9), tokens=60)
        for _ in range(3):
            rows = micro_batches
            if settings.teacher_ranks:
                teach(scorer, worker)
                rows = scored(scorer, micro_batches, False)
            sums, values, _ = worker.update(rows)
            worker.finish_batch()
            found.append((sums.plain["learner/loss"], values["learner/grad_norm"]))
        ends.append(named_weights(worker))
        worker._zero3_loading = None
    theirs, ours = found[:3], found[3:]
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, rtol=0, atol=2e-5, msg=name)


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_whose_weights_answer_a_probe(model, start, kind, stage):
    """The engines get the learner's copy; afterwards the student's own are back, bit for bit."""
    given = ("probe.every=1", "learner.lr=1e-2", f"learner.zero_stage={stage}", *KINDS[kind])
    settings = recipe(model, "sdpo", *OWN, *given)
    scorer = Scorer(settings)  # before ZeRO-3 begins to shard what this process loads
    worker = start(settings)
    initial = exported(worker)
    assert same(sampled(worker), initial)
    [micro_batches] = dealt(worker.recipe, samples(8))
    for _ in range(2):
        teach(scorer, worker)
        worker.update(scored(scorer, micro_batches, False))
        worker.finish_batch()
    student, found = exported(worker), sampled(worker)
    assert same(exported(worker), student) and not same(student, initial) and not same(found, student)
    teach(scorer, worker)
    computed = {name: tensor for tensors in named_state(scorer.policy.model) for name, tensor in tensors}
    assert all(torch.equal(found[name], tensor) for name, tensor in computed.items())
    assert same(found, initial) == (kind == "frozen")


@pytest.mark.parametrize("kind", ["frozen", "trust region"])
def test_what_the_learner_still_computes(model, start, kind):
    """A pass of the student per micro-batch, as without a teacher; the student's part of a trust region is another."""
    worker = start(recipe(model, "sdpo", *OWN, *KINDS[kind]))
    scorer, passes = Scorer(worker.recipe), []
    [micro_batches] = dealt(worker.recipe, samples(9), tokens=60)
    teach(scorer, worker)
    given = scored(scorer, micro_batches, False)
    worker.student.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    worker.update(given)
    assert len(micro_batches) > 1 and len(passes) == len(micro_batches) * (2 if kind == "trust region" else 1)


def test_a_run_may_go_on_with_the_teacher_elsewhere_and_back(model, start, tmp_path):
    """The checkpoint holds the same average, whoever computes the teacher."""
    more = ("teacher.rate=0.3", "learner.lr=1e-3")
    settings = {own: recipe(model, "sdpo", *more, *(OWN if own else ())) for own in (False, True)}
    [micro_batches] = dealt(settings[False], samples(8))
    scorer, ends = Scorer(settings[True]), []
    for order in ((False, False, False), (False, True, False), (True, True, True)):
        for step, own in enumerate(order):
            worker = start(settings[own])
            if step:
                worker.load(str(tmp_path / f"{step - 1}"))
            if own:
                teach(scorer, worker)
            worker.update(scored(scorer, micro_batches, False) if own else micro_batches)
            worker.finish_batch()
            worker.checkpointing.save(str(tmp_path / f"{step}"))
        ends.append(named_weights(worker))
    for end in ends[1:]:
        for name, weight in ends[0].items():
            torch.testing.assert_close(end[name], weight, rtol=0, atol=3e-5, msg=name)


def test_a_filler_row_is_shorter_than_what_was_scored(model, start):
    settings = recipe(model, "sdpo", *OWN, *FROZEN)
    worker, scorer = start(settings), Scorer(settings)
    teach(scorer, worker)
    rows = scored(scorer, dealt(settings, samples(4))[0], False)[0]
    assert len(rows[0].told) > 1 and rows[0].teacher_prompt_ids is not None
    filler = replace(rows[0], **{
        name: getattr(rows[0], name)[:1]
        for name in (
            "response_ids", "sampler_log_probs", "policy_gradient_weight", "distillation_weight", "reference_weight",
        )
    }, advantages=None)  # fmt: skip
    loss, outputs = worker.passes.loss([filler])
    assert torch.isfinite(loss) and len(outputs["teacher_log_probs"]) == 1


def train(settings, rank: int, address, out: Path) -> None:
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    own = settings.teacher.placement == "own"
    scorer = Scorer(settings) if own else None  # before ZeRO-3 begins to shard what this process loads
    worker = LearnerWorker(settings, build_algorithm(settings).plan, rank)
    worker.start(address)
    micro_batches = dealt(settings, samples(13), settings.learner.ranks, tokens=120)[rank]
    losses, norms = [], []
    for _ in range(3):
        rows = micro_batches
        if own:
            teach(scorer, worker)
            rows = scored(scorer, micro_batches, False)
        sums, values, _ = worker.update(rows)
        worker.finish_batch()
        losses.append(sums.plain["learner/loss"])
        norms.append(values["learner/grad_norm"])
    weights = {name: weight.float().numpy() for name, weight in named_weights(worker).items()}
    np.savez(out / f"rank{rank}.npz", **weights, losses=np.array(losses), norms=np.array(norms))
    worker._zero3_loading = None


CASES = {f"ema-{stage}": (stage, KINDS["ema"]) for stage in (0, 2, 3)} | {"trust region-3": (3, TRUST)}


def process(rank: int, port: int, model: Path, out: Path) -> None:
    import os

    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    for case, (stage, kind) in CASES.items():
        for name, own in (("inside", ()), ("outside", OWN)):
            more = (*kind, "learner.lr=1e-3", "learner.ranks=2", f"learner.zero_stage={stage}", *own)
            folder = out / f"{name}-{case}"
            folder.mkdir(exist_ok=True)
            train(recipe(model, "sdpo", *more), rank, ("127.0.0.1", port), folder)


@pytest.mark.timeout(400)
def test_two_ranks_learn_the_same_from_it(model, tmp_path):
    """Three updates; the first loss and gradient norm before rounding has changed a weight."""
    mp.spawn(process, (free_port(), model, tmp_path), nprocs=2)
    found = read(tmp_path)
    for case in CASES:
        losses, norms, weights = found[f"inside-{case}"]
        ours = found[f"outside-{case}"]
        np.testing.assert_allclose(ours[0][0], losses[0], rtol=1e-6)
        np.testing.assert_allclose(ours[1][0], norms[0], rtol=1e-6)
        np.testing.assert_allclose(ours[0], losses, rtol=1e-5)
        for name, weight in weights.items():
            np.testing.assert_allclose(ours[2][name], weight, atol=2e-5, err_msg=name)
        assert losses[0] != losses[-1]
