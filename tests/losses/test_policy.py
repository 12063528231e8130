"""Policy gradients, KL estimators and importance weights against the formulas, written out token by token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.losses.aggregate import Counts, token_weights
from sdpo.losses.importance import ratio_clip, truncated_importance_weight
from sdpo.losses.logits import sampled_log_probs
from sdpo.losses.policy import clip_masks, policy_gradient, reference_kl


def _batch(n=40, seed=0, spread=0.8):
    """log π, log π_old, A; ratios on both sides of every clip, advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(n, generator=generator, dtype=torch.float64) - 0.1
    new = old + spread * torch.randn(n, generator=generator, dtype=torch.float64)
    return new, old, torch.randn(n, generator=generator, dtype=torch.float64)


def _grad(fn, log_probs):
    leaf = log_probs.clone().requires_grad_()
    values = fn(leaf)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def _grpo_token(new, old, advantage, low, high, dual):
    """Value and derivative by log π of one token's loss, case by case."""
    r = math.exp(new - old)
    unclipped, clipped = -advantage * r, -advantage * min(max(r, 1 - low), 1 + high)
    value, slope = (unclipped, unclipped) if unclipped >= clipped else (clipped, 0.0)
    if advantage < 0 and dual is not None and -advantage * dual < value:
        value, slope = -advantage * dual, 0.0
    return value, slope


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), spread=st.sampled_from([0.05, 0.8, 2.0]),
    clip=st.sampled_from([(0.2, 0.2, 3.0), (0.2, 0.28, 3.0), (0.1, 0.4, 10.0), (0.2, 0.28, None)]),
)  # fmt: skip
def test_grpo_is_the_clipped_surrogate(seed, spread, clip):
    new, old, advantages = _batch(seed=seed, spread=spread)
    found = _grad(lambda x: policy_gradient(x, old, advantages, *clip), new)
    rows = [_grpo_token(*row, *clip) for row in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True)]
    expected = torch.tensor(rows, dtype=torch.float64).T
    torch.testing.assert_close(found, (expected[0], expected[1]), rtol=1e-9, atol=1e-12)


def test_on_policy_needs_no_old_log_probs():
    new, _, advantages = _batch()
    for variant, dual in (("ppo", 3.0), ("cispo", None)):
        values, grad = _grad(
            lambda x, v=variant, d=dual: policy_gradient(x, None, advantages, dual_clip=d, variant=v), new
        )
        torch.testing.assert_close(grad, -advantages)
        torch.testing.assert_close(values, -advantages * (new if variant == "cispo" else 1.0))


def test_gspo_gradient_is_that_of_the_sequence_ratio():
    """Two responses of different length, one clipped: against autograd through the sequence ratio itself."""
    lengths, clip = [5, 3, 4], (3e-2, 4e-2)
    generator = torch.Generator().manual_seed(1)
    old = -torch.rand(12, generator=generator, dtype=torch.float64)
    new = old + torch.cat(
        [torch.full((n,), d, dtype=torch.float64) for n, d in zip(lengths, (0.01, 0.3, 0.3), strict=True)]
    )
    new = new + 0.02 * torch.randn(12, generator=generator, dtype=torch.float64)
    advantages = [1.5, 0.7, -0.9]

    def objective(x):
        """−mean over responses of min(s·A, clip(s)·A), s the geometric mean of the token ratios."""
        total = 0
        for new_i, old_i, a in zip(x.split(lengths), old.split(lengths), advantages, strict=True):
            s = (new_i - old_i).mean().exp()
            total = total - torch.minimum(s * a, s.clamp(1 - clip[0], 1 + clip[1]) * a)
        return total / 3

    def through_tokens(x):
        log_ratio = torch.cat([d.mean().expand_as(d) for d in (x.detach() - old).split(lengths)])
        per_token = torch.cat(
            [torch.full((n,), a, dtype=torch.float64) for n, a in zip(lengths, advantages, strict=True)]
        )
        losses = policy_gradient(x, old, per_token, *clip, dual_clip=None, variant="gspo", sequence_log_ratio=log_ratio)
        weights = [token_weights(torch.ones(n).double(), "seq-mean-token-mean", Counts(12, 3)) for n in lengths]
        return (losses * torch.cat(weights)).sum()

    expected, found = _grad(objective, new), _grad(through_tokens, new)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)
    assert found[1][:5].all() and not found[1][5:8].any() and found[1][8:].all()  # only the second is clipped


def test_cispo_clips_the_weight_and_keeps_every_gradient():
    new, old, advantages = _batch()
    values, grad = _grad(lambda x: policy_gradient(x, old, advantages, 0.2, 0.28, None, "cispo"), new)
    weight = torch.tensor(
        [min(max(math.exp(a - b), 0.8), 1.28) for a, b in zip(new.tolist(), old.tolist(), strict=True)],
        dtype=torch.float64,
    )
    torch.testing.assert_close(grad, -weight * advantages, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(values, -weight * advantages * new, rtol=1e-9, atol=1e-12)
    _, unbounded_below = _grad(lambda x: policy_gradient(x, old, advantages, 1.0, 0.28, None, "cispo"), new)
    expected = -torch.exp(new - old).clamp(max=1.28) * advantages
    torch.testing.assert_close(unbounded_below, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_clip_masks_say_where_the_gradient_vanishes(dual_clip):
    new, old, advantages = _batch(spread=1.5)
    clipped, dual = clip_masks(new, old, advantages, dual_clip=dual_clip)
    _, grad = _grad(lambda x: policy_gradient(x, old, advantages, dual_clip=dual_clip), new)
    assert torch.equal(grad == 0, clipped | dual)
    assert clipped.any() and dual.any() == (dual_clip is not None) and not (dual & (advantages >= 0)).any()
    weight_clipped, none = clip_masks(new, old, advantages, dual_clip=None, variant="cispo")
    ratio = torch.exp(new - old)
    assert torch.equal(weight_clipped, (ratio < 0.8) | (ratio > 1.28)) and not none.any()


def test_a_ratio_that_overflows_stays_finite():
    new = torch.tensor([0.0, -900.0])
    old = torch.tensor([-900.0, 0.0])
    values, grad = _grad(lambda x: policy_gradient(x, old, torch.tensor([-1.0, -1.0]), dual_clip=None), new)
    assert values.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize(
    "kind, value, slope",
    [
        ("k1", lambda d: -d, lambda d: 1.0),
        ("k2", lambda d: d * d / 2, lambda d: -d),
        ("k3", lambda d: math.exp(d) - 1 - d, lambda d: 1 - math.exp(d)),
    ],
)
def test_reference_kl_estimators(kind, value, slope):
    log_probs, reference, _ = _batch()
    found = _grad(lambda x: reference_kl(x, reference, kind), log_probs)
    differences = (reference - log_probs).tolist()
    expected = tuple(torch.tensor([f(d) for d in differences], dtype=torch.float64) for f in (value, slope))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_reference_kl_estimators_in_expectation():
    """Under π, over all tokens: values of k1 and k3 are the KL; the gradient of k2 is the KL's, that of k1 is 0."""
    generator = torch.Generator().manual_seed(2)
    logits, reference = (torch.randn(1, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    probabilities = logits.softmax(-1)[0]
    tokens = torch.arange(9)

    def expectation(kind):
        def mean(x):
            rows = sampled_log_probs(x.expand(9, -1), tokens)
            return (probabilities * reference_kl(rows, sampled_log_probs(reference.expand(9, -1), tokens), kind)).sum()

        return _grad(mean, logits)

    def exact(x):
        s = x.log_softmax(-1)
        return (s.exp() * (s - reference.log_softmax(-1))).sum()

    value, grad = _grad(exact, logits)
    torch.testing.assert_close(expectation("k1")[0], value)
    torch.testing.assert_close(expectation("k3")[0], value)
    torch.testing.assert_close(expectation("k2")[1], grad)
    torch.testing.assert_close(expectation("k1")[1], torch.zeros_like(grad))


def test_importance_weights_are_truncated_constants():
    new, old, _ = _batch(spread=1.5)
    new.requires_grad_(), old.requires_grad_()
    expected = torch.tensor(
        [min(math.exp(a - b), 2.0) for a, b in zip(new.tolist(), old.tolist(), strict=True)], dtype=torch.float64
    )
    for weight in (ratio_clip(new, old, 2.0), truncated_importance_weight(new, old, 2.0)):
        torch.testing.assert_close(weight, expected)
        assert not weight.requires_grad and (weight == 2.0).any() and (weight < 2.0).any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(variant="trpo"), "variant"),
        (dict(variant="gspo"), "sequence_log_ratio"),
        (dict(sequence_log_ratio=torch.zeros(40)), "sequence_log_ratio"),
        (dict(variant="cispo"), "dual_clip has no effect"),
        (dict(dual_clip=0.9), "greater than 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        policy_gradient(*_batch(), **options)
    with pytest.raises(ValueError, match=message):
        clip_masks(*_batch(), **options)


def test_unknown_kl_estimator_is_named():
    with pytest.raises(ValueError, match="'k4'"):
        reference_kl(torch.zeros(1), torch.zeros(1), "k4")
