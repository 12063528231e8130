"""Losses where exponentials overflow and probabilities vanish: finite where the mathematics is, and only there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdpo.algorithms.srpo import CertainTeacher
from sdpo.losses.advantages import group_advantages
from sdpo.losses.divergence import divergence
from sdpo.losses.importance import ratio_clip, truncated_importance_weight
from sdpo.losses.policy import policy_gradient, reference_kl
from sdpo.losses.vocabulary import vocabulary_pass
from sdpo.types import ScoredTokens

FAR = torch.tensor([-1e4, -200.0, -89.0, -1.0, 0.0, 1.0, 89.0, 200.0, 1e4])  # exp(89) is infinite in float32


@pytest.mark.parametrize("clip", [ratio_clip, truncated_importance_weight])
def test_importance_ratios_beyond_exp_of_88_are_clipped_and_nan_stays_nan(clip):
    found = clip(FAR, torch.zeros_like(FAR), 2.0)
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.0, math.exp(-1), 1.0, 2.0, 2.0, 2.0, 2.0], rel=1e-6)
    assert (found * 0.0 == 0).all()  # a weight of 0 meets no infinity
    assert clip(torch.tensor([math.nan, 1.0]), torch.tensor([0.0, math.nan]), 2.0).isnan().all()
    assert clip(torch.tensor([-1.0]), torch.tensor([-math.inf]), 2.0) == 2.0


@pytest.mark.parametrize("variant", ["ppo", "gspo", "cispo", "reinforce"])
@pytest.mark.parametrize("advantage", [0.0, 1e3, -1e3, 1e9, -1e9])
def test_policy_gradients_of_ratios_that_overflow_are_finite(variant, advantage):
    log_probs = FAR.clone().clamp(max=0).requires_grad_()
    old, advantages = (FAR.clamp(max=0) - FAR), torch.full_like(FAR, advantage)
    more = {"sequence_log_ratio": FAR} if variant == "gspo" else {}
    losses = policy_gradient(
        log_probs, old, advantages, dual_clip=None if variant == "cispo" else 3.0, variant=variant, **more
    )
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert losses.isfinite().all() and gradient.isfinite().all()
    if advantage == 0:
        assert (losses == 0).all()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_reference_kl_between_policies_far_apart_is_finite(kind):
    log_probs = torch.zeros_like(FAR).requires_grad_()
    kl = reference_kl(log_probs, FAR, kind)
    (gradient,) = torch.autograd.grad(kl.sum(), log_probs)
    assert kl.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("normalize", [False, True])
def test_advantages_of_a_group_without_spread_are_zero_and_of_the_largest_rewards_finite(normalize):
    for reward in (0.0, 1.0, -1e9):
        assert (group_advantages(np.full(8, reward), normalize_by_std=normalize) == 0).all()
    found = group_advantages(np.array([1e9, -1e9, 0.0]), normalize_by_std=normalize).astype(np.float32)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("top_k, tail", [(None, True), (2, True), (2, False)])
def test_divergences_of_probabilities_that_vanish_are_those_of_double_precision(alpha, top_k, tail):
    """q = 0 in float32 where its logit lies 200 below; log-probs of both sides stay finite."""
    student = torch.tensor([[0.0, -200.0, 1.0, 2.0], [300.0, 0.0, 1.0, -300.0], [0.0, 0.0, 0.0, 0.0]])
    teacher = torch.tensor([[-200.0, 0.0, 1.0, 2.0], [0.0, 300.0, -300.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    student.requires_grad_()
    found = divergence(student, teacher, alpha, top_k, tail)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    expected = divergence(student.detach().double(), teacher.double(), alpha, top_k, tail)
    assert gradient.isfinite().all()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", [[-math.inf] * 4, [0.0, math.nan, 0.0, 0.0], [0.0, math.inf, 0.0, 0.0]])
@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("options", [{}, {"alpha": 1.0, "top_k": 2}, {"alpha": 0.5}, {"alpha": 0.0}])
def test_logits_that_are_no_distribution_show_in_the_entropy_whatever_the_loss_sees(row, side, options):
    """All −inf, NaN, or inf in one entry that is neither sampled nor among the likeliest: what the learner looks at."""
    logits = {"student": torch.zeros(1, 4), "teacher": torch.zeros(1, 4)}
    logits[side] = torch.tensor([row])
    found = vocabulary_pass(logits["student"], torch.tensor([0]), logits["teacher"], **options, triton=False)
    assert not (found.entropy if side == "student" else found.teacher_entropy).isfinite().any()


@pytest.mark.parametrize("beta", [0.0, 1.0, 1e3, 1e30])
def test_weights_of_a_certain_teacher_are_finite_and_have_mean_one_for_any_beta(beta):
    def scored(entropy, weight):
        zeros = np.zeros(len(entropy), np.float32)
        return ScoredTokens(np.asarray(weight, np.float32), None, zeros, np.asarray(entropy, np.float32), zeros)

    batch = [scored([2.0, 3.0], [1, 1]), scored([2.5, 0.1], [1, 0]), ScoredTokens(None, None, np.ones(1), None, None)]
    first, second, nothing = CertainTeacher(beta)(batch)
    counted = np.array([*first, second[0]])
    assert nothing is None and counted.mean() == pytest.approx(1, rel=1e-6)
    assert np.isfinite(first).all() and np.isfinite(second).all()
    if beta == 1:
        expected = np.exp(-np.array([2.0, 3.0, 2.5]))
        assert counted == pytest.approx(expected / expected.mean(), rel=1e-6)
