"""Divergences: the properties that pin a correct implementation, and every option against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sdpo.losses.credit import sequence_credit, token_credit
from sdpo.losses.divergence import divergence
from sdpo.losses.logits import mix_logits, sampled_log_probs

ALPHAS = [0.0, 0.3, 0.5, 1.0]
SUPPORTS = [(None, True), (1, True), (5, True), (5, False), (22, True)]
V = 23


def _logits(n=6, v=V, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, v, generator=generator, dtype=torch.float64).mul(scale).to(dtype) for _ in range(2)]


def _grad(fn, logits):
    leaf = logits.clone().requires_grad_()
    values = fn(leaf)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k, tail", SUPPORTS)
def test_identical_contexts_give_loss_0_and_gradient_0(alpha, top_k, tail, dtype):
    student, _ = _logits(dtype=dtype)
    loss, grad = _grad(lambda s: divergence(s, student.clone(), alpha, top_k, tail), student)
    resolution = 10 * torch.finfo(dtype).eps
    assert loss.abs().max() <= resolution and grad.abs().max() <= resolution
    if top_k is None:  # exactly: an optimiser that normalises gradients would blow up the smallest rest
        assert not loss.any() and not grad.any()


def test_identical_contexts_give_no_advantage_and_no_credit():
    student, _ = _logits()
    tokens = torch.arange(6)
    loss, grad = _grad(lambda s: divergence(s, student.clone(), 1.0, advantage_clip=5.0), student)
    assert not loss.any() and not grad.any()
    log_probs = sampled_log_probs(student, tokens)
    assert not token_credit(log_probs, log_probs.clone()).any()


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 5), v=st.integers(2, 40), seed=st.integers(0, 999), scale=st.sampled_from([0.1, 1.0, 8.0]))
def test_autograd_of_full_reverse_kl_is_the_logit_advantage_form(n, v, seed, scale):
    """∂/∂logits Σ_v π·log(π/q) = −∂/∂logits Σ_v stopgrad(π·A)·log π with A = log q − log π (Prop. 2.1)."""
    student, teacher = _logits(n, v, seed, scale)

    def advantage_form(s):
        log_probs = F.log_softmax(s, -1)
        advantages = F.log_softmax(teacher, -1) - log_probs
        return -((log_probs.exp() * advantages).detach() * log_probs).sum(-1)

    _, expected = _grad(advantage_form, student)
    _, closed = _grad(lambda s: divergence(s, teacher, 1.0), student)
    _, unclipped = _grad(lambda s: divergence(s, teacher, 1.0, advantage_clip=1e6), student)
    torch.testing.assert_close(closed, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(unclipped, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_full_vocabulary_equals_torch_kl_div(alpha):
    student, teacher = _logits()
    s, t = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    first, second = (s, t) if alpha == 0 else (t, s)  # kl_div(input, target) is KL(target‖input)
    expected = F.kl_div(first, second, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(student, teacher, alpha), expected, rtol=1e-12, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    alpha=st.one_of(st.sampled_from(ALPHAS), st.floats(0.01, 0.99)), v=st.integers(2, 40),
    seed=st.integers(0, 999), scale=st.sampled_from([0.01, 1.0, 10.0, 60.0]),
)  # fmt: skip
def test_closed_gradients_equal_autograd_of_the_formulas(alpha, v, seed, scale):
    student, teacher = _logits(4, v, seed, scale)

    def formula(s):
        s, t = F.log_softmax(s, -1), F.log_softmax(teacher, -1)
        if alpha == 0:
            return (t.exp() * (t - s)).sum(-1)
        if alpha == 1:
            return (s.exp() * (s - t)).sum(-1)
        m = torch.logaddexp(s + math.log(1 - alpha), t + math.log(alpha))
        return (1 - alpha) * (s.exp() * (s - m)).sum(-1) + alpha * (t.exp() * (t - m)).sum(-1)

    expected = _grad(formula, student)
    found = _grad(lambda s: divergence(s, teacher, alpha), student)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_extreme_float32_logits_stay_finite():
    student, teacher = _logits(4, 9, scale=300.0, dtype=torch.float32)
    for alpha in ALPHAS:
        for top_k in (None, 3):
            loss, grad = _grad(lambda s, a=alpha, k=top_k: divergence(s, teacher, a, k), student)
            assert loss.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("support", ["student", "teacher"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_top_k_with_tail_tends_to_the_full_vocabulary(alpha, support):
    """Merging entries can only lose divergence, so the distance to the full value falls as K grows."""
    student, teacher = _logits(seed=3)
    full, full_grad = _grad(lambda s: divergence(s, teacher, alpha), student)
    previous = None
    for k in (1, 3, 8, 15, 22):
        loss, grad = _grad(lambda s, k=k: divergence(s, teacher, alpha, k, support=support), student)
        gap, grad_gap = (full - loss).sum(), (full_grad - grad).norm()
        assert gap >= -1e-10
        if previous is not None:
            assert gap <= previous + 1e-10
        previous = gap
    # K = V − 1 leaves a single entry in the tail: nothing is merged.
    assert gap.abs() < 1e-10 and grad_gap < 1e-10
    for k in (V, V + 5):
        torch.testing.assert_close(divergence(student, teacher, alpha, k, support=support), full, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_a_small_tail_keeps_its_digits(alpha, dtype, tolerance):
    """The top 3 hold all but about 1e−5: in float32, 1 minus their sum would be off by a percent."""
    student, teacher = (logits.float().double() for logits in _logits(4, V))
    student[:, :3] += 14
    teacher[:, :3] += 14

    def formula(s):
        s, t = s.softmax(-1), teacher.softmax(-1)
        s, t = (torch.cat([p[:, :3], p[:, 3:].sum(-1, keepdim=True)], -1) for p in (s, t))
        if alpha == 0:
            return (t * (t / s).log()).sum(-1)
        if alpha == 1:
            return (s * (s / t).log()).sum(-1)
        m = (1 - alpha) * s + alpha * t
        return ((1 - alpha) * s * (s / m).log() + alpha * t * (t / m).log()).sum(-1)

    wanted = _grad(formula, student)
    found = _grad(lambda s: divergence(s, teacher.to(dtype), alpha, 3), student.to(dtype))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
    tails = found[1][:, 3:].double() / wanted[1][:, 3:]  # the gradient of the merged entries, small as it is
    torch.testing.assert_close(tails, torch.ones_like(tails), rtol=100 * tolerance, atol=0)


def test_support_says_whose_top_k():
    student, teacher = _logits(seed=5)
    ids = teacher.topk(4).indices
    s = F.log_softmax(student.gather(-1, ids), -1)
    t = F.log_softmax(teacher.gather(-1, ids), -1)
    expected = (t.exp() * (t - s)).sum(-1)
    found = divergence(student, teacher, 0.0, 4, tail=False, support="teacher")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, divergence(student, teacher, 0.0, 4, tail=False))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k, tail", SUPPORTS)
def test_teacher_never_gets_a_gradient(alpha, top_k, tail):
    student, teacher = _logits()
    student.requires_grad_(), teacher.requires_grad_()
    divergence(student, teacher, alpha, top_k, tail).sum().backward()
    assert teacher.grad is None and student.grad.any() == (top_k != 1 or tail)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k, tail", [(None, True), (5, True), (5, False)])
def test_a_gradient_step_moves_the_student_toward_the_teacher(alpha, top_k, tail):
    student, teacher = _logits()
    untouched = teacher.clone()
    before, grad = _grad(lambda s: divergence(s, teacher, alpha, top_k, tail), student)
    after = divergence(student - 0.05 * grad, teacher, alpha, top_k, tail)
    assert (after < before).all() and torch.equal(teacher, untouched)


def test_advantage_clip_steps_toward_the_teacher_and_bounds_the_advantage():
    student, teacher = _logits(scale=4.0)
    c = 0.5

    def formula(s):
        s = F.log_softmax(s, -1)
        advantages = (F.log_softmax(teacher, -1) - s).clamp(-c, c)
        return -((s.exp() * advantages).detach() * s).sum(-1)

    found = _grad(lambda s: divergence(s, teacher, 1.0, advantage_clip=c), student)
    torch.testing.assert_close(found, _grad(formula, student), rtol=1e-10, atol=1e-12)
    assert (found[1] - _grad(lambda s: divergence(s, teacher, 1.0), student)[1]).norm() > 0.1
    assert (divergence(student - 0.05 * found[1], teacher, 1.0) < divergence(student, teacher, 1.0)).all()


def test_advantage_form_on_top_k_with_tail_has_the_reverse_kls_gradient_when_the_clip_is_idle():
    student, teacher = _logits()
    _, expected = _grad(lambda s: divergence(s, teacher, 1.0, 5), student)
    _, found = _grad(lambda s: divergence(s, teacher, 1.0, 5, advantage_clip=100.0), student)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_entry_clip_bounds_every_entrys_contribution(alpha):
    student, teacher = _logits()
    c = 0.05

    def formula(s):
        p, q = F.softmax(s, -1), F.softmax(teacher, -1)
        if alpha == 0:
            entries = q * (q / p).log()
        elif alpha == 1:
            entries = p * (p / q).log()
        else:
            m = (1 - alpha) * p + alpha * q
            entries = (1 - alpha) * p * (p / m).log() + alpha * q * (q / m).log()
        return torch.minimum(entries, torch.tensor(c, dtype=entries.dtype)).sum(-1)

    found = _grad(lambda s: divergence(s, teacher, alpha, entry_clip=c), student)
    torch.testing.assert_close(found, _grad(formula, student), rtol=1e-9, atol=1e-12)
    idle = _grad(lambda s: divergence(s, teacher, alpha, entry_clip=1e6), student)
    torch.testing.assert_close(idle, _grad(lambda s: divergence(s, teacher, alpha), student), rtol=1e-9, atol=1e-12)


def test_half_precision_inputs_are_raised():
    student, teacher = _logits(dtype=torch.bfloat16)
    for top_k in (None, 5):
        found = divergence(student, teacher, 0.5, top_k)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, divergence(student.float(), teacher.float(), 0.5, top_k))


@pytest.mark.parametrize("rate", [0.0, 0.05, 1.0])
def test_trust_region_mix_is_the_geometric_mixture(rate):
    reference, live = _logits()
    expected = F.softmax(reference, -1) ** (1 - rate) * F.softmax(live, -1) ** rate
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(mix_logits(reference, live, rate).softmax(-1), expected, rtol=1e-12, atol=1e-15)


def test_trust_region_rate_0_is_the_reference():
    reference, live = _logits()
    assert torch.equal(mix_logits(reference, live, 0.0), reference)
    assert torch.equal(mix_logits(reference, live, 1.0), live)


def test_sampled_credit_estimates_the_gradient_of_the_reverse_kl():
    """Exactly, not by sampling: the mean over all tokens under π of the token credit's gradient."""
    student, teacher = _logits(1, 7)
    _, expected = _grad(lambda s: divergence(s, teacher, 1.0), student)
    probabilities = student.softmax(-1)[0]
    total = torch.zeros_like(student)
    for token in range(7):
        ids = torch.tensor([token])
        credit = _grad(lambda s, i=ids: token_credit(sampled_log_probs(s, i), sampled_log_probs(teacher, i)), student)
        total += probabilities[token] * credit[1]
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-13)


def test_sequence_credit_gives_every_token_its_responses_mean():
    log_probs = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([-2.0, -2.0, -1.0], dtype=torch.float64)
    mean = (log_probs - teacher).mean().expand(3)
    losses = sequence_credit(log_probs, mean)
    losses.sum().backward()
    assert losses.tolist() == [pytest.approx(v / 3) for v in (1.0, 2.0, 3.0)]
    assert log_probs.grad.tolist() == [pytest.approx(-1 / 3)] * 3


def test_sampled_log_probs():
    student, _ = _logits()
    tokens = torch.tensor([0, 5, 22, 3, 3, 1])
    expected = torch.distributions.Categorical(logits=student).log_prob(tokens)
    torch.testing.assert_close(sampled_log_probs(student, tokens), expected)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(alpha=1.5), "alpha"),
        (dict(alpha=1.0, top_k=0), "top_k"),
        (dict(alpha=1.0, top_k=3, support="both"), "support"),
        (dict(alpha=1.0, entry_clip=0.0), "entry_clip"),
        (dict(alpha=1.0, advantage_clip=-1.0), "advantage_clip"),
        (dict(alpha=0.5, advantage_clip=5.0), "alpha = 1"),
        (dict(alpha=1.0, advantage_clip=5.0, entry_clip=0.05), "combined"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        divergence(*_logits(), **options)


def test_mix_rate_out_of_range_is_named():
    with pytest.raises(ValueError, match="rate is 1.2"):
        mix_logits(*_logits(), 1.2)
