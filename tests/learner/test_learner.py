"""One rank of the real learner against closed forms and against plain transformers in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.learner.model import LossHead
from sdpo.learner.packing import pack
from sdpo.learner.teacher import Asked
from tests.learner.tiny import dealt, loss_and_gradient, recipe, reference_log_probs, samples


def weights(worker) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in worker.student.model.named_parameters()}


@pytest.fixture(scope="module")
def double(model):
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)


def test_log_probs_are_those_of_plain_transformers(model, start, double):
    settings = recipe(model, "grpo", "rollout.temperature=0.7")
    worker, batch = start(settings), samples(9)
    [micro_batches] = dealt(settings, batch, tokens=90)
    found = [values for rows in worker.passes.log_probs(micro_batches) for values in rows]
    by_response = {tuple(row.response_ids.tolist()): v for row, v in zip(sum(micro_batches, []), found, strict=True)}
    for sample in batch:
        tokens = torch.tensor(sample.response_ids)
        wanted = reference_log_probs(double, sample, 0.7).gather(1, tokens[:, None])[:, 0]
        np.testing.assert_allclose(by_response[sample.response_ids], wanted.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_distillation_loss_and_gradient_against_float64(model, start, double, alpha, aggregation):
    settings = recipe(
        model, "sdpo", f"distillation.alpha={alpha}", f"distillation.aggregation={aggregation}", "teacher.kind=frozen",
        "teacher.rate=null", "teacher.clock=null", "distillation.sampler_threshold=null", "rollout.temperature=1.3",
    )  # fmt: skip
    worker, batch = start(settings), samples(7)
    [micro_batches] = dealt(settings, batch, tokens=100)
    loss, gradient = loss_and_gradient(worker, micro_batches)

    taught = [s for s in batch if s.teacher is not None]
    student = copy.deepcopy(double)
    terms = []
    for s in taught:
        p = reference_log_probs(student, s, 1.3)
        q = reference_log_probs(double, s, 1.3, s.teacher.prompt_ids).detach()
        m = torch.logsumexp(torch.stack([p + np.log(1 - alpha), q + np.log(alpha)]), 0) if 0 < alpha < 1 else None
        if alpha == 0:
            each = (q.exp() * (q - p)).sum(-1)
        elif alpha == 1:
            each = (p.exp() * (p - q)).sum(-1)
        else:
            each = ((1 - alpha) * p.exp() * (p - m) + alpha * q.exp() * (q - m)).sum(-1)
        terms.append(each)
    wanted = torch.cat(terms).mean() if aggregation == "token-mean" else torch.stack([t.mean() for t in terms]).mean()
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in student.named_parameters():
        scale = parameter.grad.abs().max()
        torch.testing.assert_close(gradient[name].double(), parameter.grad, rtol=1e-3, atol=float(3e-5 * scale))


def sampled(log_probs, sample):
    return log_probs.gather(1, torch.tensor(sample.response_ids)[:, None])[:, 0]


def compare(worker, micro_batches, wanted, student):
    """Loss and gradient of the worker are those of a float64 loss on `student`."""
    loss, gradient = loss_and_gradient(worker, micro_batches)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)
    for name, parameter in student.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(gradient[name].double(), parameter.grad, rtol=1e-3, atol=3e-5 * scale)


def another_policy_began(model, batch, micro_batches):
    """The micro-batches with log-probs of an old policy near `model`, and these by response."""
    rng, old = np.random.default_rng(0), {}
    for s in batch:
        shift = rng.normal(0.0, 0.3) + rng.normal(0.0, 0.1, len(s.response_ids))
        old[s.response_ids] = (sampled(reference_log_probs(model, s), s).detach().numpy() + shift).astype(np.float32)
    rows = [[replace(r, old_log_probs=old[tuple(r.response_ids.tolist())]) for r in rows] for rows in micro_batches]
    return rows, old


def test_sequence_credit_is_the_mean_of_the_tokens_that_carry_loss(model, start, double):
    """Each taught token: mean(log π − log q)·log π, the mean over the response's tokens behind the second."""
    settings = recipe(
        model, "sdpo", "distillation.level=sequence", "distillation.alpha=1", "distillation.sampler_threshold=null",
        "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null",
    )  # fmt: skip
    worker, batch = start(settings), samples(9)
    for sample in batch:
        if sample.teacher is not None:
            sample.teacher.weight[:2] = 0
    [micro_batches] = dealt(settings, batch, tokens=90)
    student, terms = copy.deepcopy(double), []
    for s in batch:
        if s.teacher is not None and len(s.response_ids) > 2:
            p = sampled(reference_log_probs(student, s), s)
            q = sampled(reference_log_probs(double, s, prompt=s.teacher.prompt_ids), s).detach()
            terms.append((p - q)[2:].mean().detach() * p[2:])
    compare(worker, micro_batches, torch.cat(terms).mean(), student)


def test_gspo_has_the_ratio_of_the_response(model, start, double):
    """−min(A·s, A·clip(s)), s = exp(mean(log π − log π_old)); its gradient reaches every token by stopgrad(s)·π."""
    settings = recipe(
        model, "grpo", "policy_gradient.variant=gspo", "learner.updates_per_batch=2", "policy_gradient.dual_clip=null",
        "policy_gradient.sampler_threshold=null",
    )  # fmt: skip
    worker, batch = start(settings), samples(9)
    [micro_batches] = dealt(settings, batch, tokens=90)
    micro_batches, old = another_policy_began(double, batch, micro_batches)
    student, terms, clipped = copy.deepcopy(double), [], 0
    for s in batch:
        p, advantages = sampled(reference_log_probs(student, s), s), torch.tensor(s.advantages)
        ratio = (p.detach() - torch.tensor(old[s.response_ids])).mean().exp() * (p - p.detach()).exp()
        bounded = ratio.clamp(0.8, 1.28)
        clipped += int((bounded != ratio).any())
        terms.append(torch.maximum(-advantages * ratio, -advantages * bounded))
    assert 0 < clipped < len(batch)
    compare(worker, micro_batches, torch.cat(terms).mean(), student)


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_both_importance_corrections_weigh_the_tokens(model, start, double, algorithm):
    """min(π_old/π_sampler, c) on either stream, and min(stopgrad(π)/π_old, c) on the distillation."""
    own = {
        "sdpo": ("distillation.alpha=1", "distillation.sampler_threshold=0.01", "distillation.is_clip=1.05",
                 "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null"),
        "grpo": ("policy_gradient.sampler_threshold=0.01", "policy_gradient.dual_clip=null"),
    }[algorithm]  # fmt: skip
    settings = recipe(model, algorithm, "learner.updates_per_batch=2", *own)
    worker, batch = start(settings), samples(9)
    [micro_batches] = dealt(settings, batch, tokens=90)
    micro_batches, old = another_policy_began(double, batch, micro_batches)
    student, terms, cut = copy.deepcopy(double), [], []
    for s in batch:
        log_probs, began = reference_log_probs(student, s), torch.tensor(old[s.response_ids])
        ratio = (sampled(log_probs, s) - began).exp()
        sampler = (began - torch.tensor(s.sampler_log_probs)).exp()
        if algorithm == "grpo":
            advantages = torch.tensor(s.advantages)
            loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.28))
        elif s.teacher is None:
            continue
        else:
            q = reference_log_probs(double, s, prompt=s.teacher.prompt_ids).detach()
            loss = (log_probs.exp() * (log_probs - q)).sum(-1) * ratio.detach().clamp(max=1.05)
        terms.append(loss * sampler.clamp(max=0.01))
        cut.append(sampler > 0.01)
    assert torch.cat(cut).any() and not torch.cat(cut).all()
    compare(worker, micro_batches, torch.cat(terms).mean(), student)


@pytest.mark.parametrize("kind", ["live", "frozen", "ema", "trust_region"])
def test_identical_contexts_give_no_loss_and_no_gradient(model, start, kind):
    switch_off = ["teacher.rate=null"] * (kind in ("live", "frozen")) + ["teacher.clock=null"] * (kind != "ema")
    settings = recipe(model, "sdpo", f"teacher.kind={kind}", *switch_off)
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(6, same_context=True))
    loss, gradient = loss_and_gradient(worker, micro_batches)
    assert abs(loss) < 1e-6
    assert max(float(g.abs().max()) for g in gradient.values()) < 1e-6


@pytest.mark.parametrize(
    "overrides",
    [
        ("distillation.level=logit",),
        ("distillation.level=token", "distillation.alpha=1"),
        ("distillation.level=sequence", "distillation.alpha=1"),
        ("distillation.top_k=5",),
        (
            "algorithm.mix=0.7",
            "distillation.aggregation=seq-mean-token-sum",
            "policy_gradient.aggregation=seq-mean-token-sum",
        ),
        ("algorithm.mix=0.3", "policy_gradient.entropy_bonus=0.1"),
        ("algorithm.name=grpo", "policy_gradient.aggregation=fixed-length", "policy_gradient.entropy_bonus=0.1"),
        ("reference={coefficient: 0.2, kind: k2}",),
        ("algorithm.name=grpo", "policy_gradient.variant=gspo", "learner.updates_per_batch=2"),
        ("algorithm.name=grpo", "policy_gradient.variant=cispo", "learner.updates_per_batch=2"),
    ],
)
def test_the_result_does_not_depend_on_micro_batches(model, start, overrides):
    family = "grpo" if overrides[0] == "algorithm.name=grpo" else "sdpo"
    settings = recipe(model, family, *overrides)
    worker, batch = start(settings), samples(10, reference="reference" in overrides[0])
    [whole], [pieces] = dealt(settings, batch), dealt(settings, batch, tokens=1)
    assert len(whole) == 1 and len(pieces) == 10
    loss, gradient = loss_and_gradient(worker, whole)
    loss_pieces, gradient_pieces = loss_and_gradient(worker, pieces)
    assert loss_pieces == pytest.approx(loss, rel=1e-5)
    for name, g in gradient.items():
        # in fp32 the order of the sums shows, at about 1e-5 of the largest entry
        torch.testing.assert_close(gradient_pieces[name], g, rtol=2e-4, atol=float(1e-4 * g.abs().max()))


def test_a_step_moves_the_student_to_the_teacher_and_never_the_teacher(model, start):
    settings = recipe(
        model, "sdpo", "teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "learner.lr=1e-3"
    )
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    teacher = {name: p.detach().clone() for name, p in worker.teacher.initial.policy.named_parameters()}
    losses = [worker.update(micro_batches)[0].plain["learner/loss"] for _ in range(5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.5 * losses[0]
    for name, p in worker.teacher.initial.policy.named_parameters():
        assert torch.equal(p, teacher[name])


@pytest.mark.parametrize("clock", ["batch", "update"])
def test_moving_average_in_closed_form(model, start, clock):
    settings = recipe(model, "sdpo", "teacher.rate=0.25", f"teacher.clock={clock}", "learner.updates_per_batch=2")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    expected = weights(worker)
    for _ in range(3):
        worker.update(micro_batches)
        if clock == "update":
            expected = {n: 0.75 * expected[n] + 0.25 * w for n, w in weights(worker).items()}
    worker.finish_batch()
    if clock == "batch":
        expected = {n: 0.75 * expected[n] + 0.25 * w for n, w in weights(worker).items()}
    for name, p in worker.teacher.average.policy.model.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-6, atol=1e-7)


def test_a_bf16_policy_has_an_fp32_average_that_moves(model, start):
    stage = "learner.zero_stage=2"
    settings = recipe(model, "sdpo", "teacher.rate=0.01", "model.dtype=bfloat16", stage, "learner.lr=1e-4")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    before = {name: v.clone() for name, v in worker.teacher.average.average.items()}
    worker.update(micro_batches)
    worker.finish_batch()
    average = worker.teacher.average
    assert all(v.dtype == torch.float32 for v in average.average.values())
    moved = torch.cat([(average.average[n] != before[n]).flatten() for n in before]).float().mean()
    assert moved > 0.9  # a bf16 average would not move at all by steps of 1e-6
    for name, p in average.policy.named_parameters():
        assert torch.equal(p, average.average[name].bfloat16())


def test_trust_region_mixes_initial_and_live_logits(model, start, double):
    settings = recipe(
        model, "sdpo", "teacher.kind=trust_region", "teacher.rate=0.3", "teacher.clock=null", "learner.lr=1e-2"
    )
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    worker.update(micro_batches)
    [sample] = samples(1, seed=5)
    live = copy.deepcopy(double)
    live.load_state_dict({n: w.double() for n, w in worker.student.model.state_dict().items()})
    prompt = np.array(sample.teacher.prompt_ids)
    packs = [pack([prompt], [np.array(sample.response_ids)], torch.device("cpu"))]
    run, everything = worker.passes.run_student, slice(0, len(sample.response_ids))
    asked = Asked(packs, np.arange(len(sample.response_ids)))
    with worker.teacher.logits(worker.student, run, asked, 1.0) as logits:
        found = logits(everything).log_softmax(-1).double()
    initial = reference_log_probs(double, sample, prompt=sample.teacher.prompt_ids)
    moved = reference_log_probs(live, sample, prompt=sample.teacher.prompt_ids)
    wanted = (0.7 * initial + 0.3 * moved).log_softmax(-1)
    assert (initial - moved).abs().max() > 1e-2
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [4, 1000])
def test_the_teacher_projects_what_it_is_asked_and_no_more(model, start, chunk, monkeypatch):
    settings = recipe(model, "sdpo", f"learner.chunk_tokens={chunk}")
    worker, made = start(settings), samples(12)
    [micro_batches] = dealt(settings, made)
    projected = []
    whole = LossHead.logits
    monkeypatch.setattr(LossHead, "logits", lambda self, h, t: projected.append(len(h)) or whole(self, h, t))
    worker.update(micro_batches)
    tokens = {told: sum(len(s.response_ids) for s in made if (s.teacher is not None) == told) for told in (True, False)}
    assert sum(projected) == tokens[True] and tokens[False] > 10


def test_checkpoint_restores_student_optimiser_schedule_and_teacher(model, start, tmp_path):
    settings = recipe(model, "sdpo", "teacher.rate=0.2", "learner.schedule=linear", "learner.warmup_steps=2")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    for _ in range(2):
        worker.update(micro_batches)
        worker.finish_batch()
    worker.checkpointing.save(str(tmp_path))
    resumed = start(settings)
    resumed.checkpointing.load(str(tmp_path))
    for w in (worker, resumed):
        _, values, _ = w.update(micro_batches)
        w.finish_batch()
        last = values["learner/lr"]
    assert last == pytest.approx(settings.learner.lr)  # the third update: the second of the warm-up's is behind it
    for (name, a), (_, b) in zip(weights(worker).items(), weights(resumed).items(), strict=True):
        assert torch.equal(a, b), name
    for name, a in worker.teacher.average.average.items():
        assert torch.equal(a, resumed.teacher.average.average[name]), name


def test_gradient_checkpointing_changes_nothing(model, start):
    plain, saving = (recipe(model, "sdpo", f"learner.gradient_checkpointing={flag}") for flag in ("false", "true"))
    results = []
    for settings in (plain, saving):
        worker = start(settings)
        [micro_batches] = dealt(settings, samples(6))
        results.append(loss_and_gradient(worker, micro_batches))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, g in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], g, rtol=1e-4, atol=float(1e-6 * g.abs().max()))
