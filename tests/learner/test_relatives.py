"""The defining formula of each relative: from groups through its algorithm and the real learner, against float64."""

from __future__ import annotations

import copy

import pytest
import torch

from sdpo.algorithms import build_algorithm
from tests.learner.formula import MIXED, chosen, compare, learned, moved
from tests.learner.tiny import ROUNDED, recipe, reference_log_probs


def test_srpo(model, start, double, tokenizer):
    """(Σ_wrong w·JSD − Σ_rest A·log π) / (all their tokens), w = exp(−β·H_q) / mean of that."""
    settings = recipe(
        model, "srpo", *ROUNDED, "algorithm.entropy_beta=2", "distillation.alpha=1", "context.feedback=never",
        "distillation.sampler_threshold=null", "policy_gradient.sampler_threshold=null",
    )  # fmt: skip
    samples, loss, gradient = learned(settings, start(settings), tokenizer, MIXED)
    # Wrong with a successful sibling: distilled.  The failures of the second group have no teacher: GRPO, A = 0.
    assert [s.teacher is not None for s in samples] == [False, True, True, False, False, False, False]
    assert [None if s.advantages is None else round(float(s.advantages[0]), 3) for s in samples] == [
        0.667, None, None, 0, 0, 0, 0,
    ]  # fmt: skip
    student, kls, weights, gains = copy.deepcopy(double), [], [], []
    for s in samples:
        p = reference_log_probs(student, s)
        if s.teacher is None:
            gains.append(torch.tensor(s.advantages) * (chosen(p, s) - chosen(p, s).detach()).exp())
            continue
        q = reference_log_probs(double, s, prompt=s.teacher.prompt_ids).detach()
        kls.append((p.exp() * (p - q)).sum(-1))
        weights.append((2 * (q.exp() * q).sum(-1)).exp())
    weights = torch.cat(weights)
    tokens = sum(len(s.response_ids) for s in samples)
    distilled = (weights / weights.mean() * torch.cat(kls)).sum()
    compare((distilled - torch.cat(gains).sum()) / tokens, student, loss, gradient)


@pytest.mark.parametrize("version", ["v3", "v1", "sampled"])
def test_opsd(model, start, double, tokenizer, version):
    """mean of Σ_v min(q·log(q/π), c), or JSD, or −(log q − log π)·log π; q: the initial policy behind the solution."""
    options = {
        "v3": ["distillation.entry_clip=0.0005"],
        "v1": ["distillation.alpha=0.5", "distillation.entry_clip=null"],
        "sampled": ["distillation.level=token", "distillation.alpha=1", "distillation.entry_clip=null"],
    }[version]
    settings = recipe(model, "opsd", *ROUNDED, *options, "distillation.sampler_threshold=null", "learner.lr=3e-3")
    assert not build_algorithm(settings).needs_rewards
    worker, passed = start(settings), [[True], [False], [False]]
    student = moved(settings, worker, tokenizer, passed, copy.deepcopy(double))  # its teacher has not
    samples, loss, gradient = learned(settings, worker, tokenizer, passed)

    terms, clipped = [], 0
    for s in samples:
        assert "print(" in tokenizer.decode(s.teacher.prompt_ids)
        p = reference_log_probs(student, s)
        q = reference_log_probs(double, s, prompt=s.teacher.prompt_ids).detach()
        if version == "v3":
            entries = q.exp() * (q - p)
            clipped += int((entries > 0.0005).sum())
            terms.append(entries.clamp(max=0.0005).sum(-1))
        elif version == "v1":
            m = ((p.exp() + q.exp()) / 2).log()
            terms.append(((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2)
        else:
            terms.append((chosen(p, s) - chosen(q, s)).detach() * chosen(p, s))
    assert version != "v3" or clipped > 10
    compare(torch.cat(terms).mean(), student, loss, gradient)


def test_sdft(model, start, double, tokenizer):
    """mean over tokens behind the third of KL(q‖π), full vocabulary; q: the moving average behind the demonstration."""
    settings = recipe(
        model, "sdft", *ROUNDED, "distillation.sampler_threshold=null", "teacher.rate=0.25", "learner.lr=3e-3"
    )
    assert not build_algorithm(settings).needs_rewards
    worker, passed = start(settings), [[True], [False], [False], [True]]
    student = moved(settings, worker, tokenizer, passed, copy.deepcopy(double))
    samples, loss, gradient = learned(settings, worker, tokenizer, passed)

    average = copy.deepcopy(double)
    with torch.no_grad():
        for own, theirs in zip(average.parameters(), student.parameters(), strict=True):
            own.mul_(0.75).add_(0.25 * theirs)
    terms = []
    for s in samples:
        p = reference_log_probs(student, s)
        q = reference_log_probs(average, s, prompt=s.teacher.prompt_ids).detach()
        terms.append((q.exp() * (q - p)).sum(-1)[3:])
    assert min(len(s.response_ids) for s in samples) < 3 < max(len(s.response_ids) for s in samples)
    compare(torch.cat(terms).mean(), student, loss, gradient)


@pytest.mark.parametrize("began", [None, -3.0])
def test_sft(model, start, double, tokenizer, began):
    """mean of −log π over the tokens of the demonstrations, whatever policy the batch began with."""
    settings = recipe(model, "sft", "learner.updates_per_batch=2")
    assert not build_algorithm(settings).needs_rewards
    worker, student = start(settings), copy.deepcopy(double)
    samples, loss, gradient = learned(settings, worker, tokenizer, [[True], [False], [False]], began=began)
    wanted = -torch.cat([chosen(reference_log_probs(student, s), s) for s in samples]).mean()
    compare(wanted, student, loss, gradient)
