"""The 52 cases computed with the released SDPO code, through the same functions that the learner calls."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpo.losses.advantages import group_advantages
from sdpo.losses.aggregate import counts, token_weights
from sdpo.losses.chunked import projected_loss
from sdpo.losses.credit import token_credit
from sdpo.losses.importance import ratio_clip
from sdpo.losses.policy import clip_masks, policy_gradient
from sdpo.losses.vocabulary import vocabulary_pass

DATA = Path(__file__).parent.parent / "data"
CASES = json.loads((DATA / "losses.json").read_text())
TRITON = os.environ.get("TRITON_INTERPRET") == "1"  # in the process that `test_vocabulary` starts
CHUNK = 5  # does not divide the number of tokens


@pytest.fixture(scope="module")
def arrays():
    with np.load(DATA / "losses.npz") as file:
        return dict(file)


def _of(arrays, name):
    prefix = name + "/"
    return {k.removeprefix(prefix): torch.from_numpy(v.copy()) for k, v in arrays.items() if k.startswith(prefix)}


def _run(logits, fn):
    """Loss and gradient of the logits [B, T, V], which an identity as output matrix hands through."""
    hidden = logits.flatten(0, 1).clone().requires_grad_()
    loss, outputs = projected_loss(hidden, torch.eye(logits.shape[-1], dtype=torch.float64), fn, chunk_tokens=CHUNK)
    loss.backward()
    return loss.detach(), hidden.grad.view_as(logits), outputs


def _assert_matches(loss, grad, case):
    assert torch.allclose(loss, case["loss"], rtol=1e-8, atol=1e-14)
    scale = case["grad"].abs().max()
    assert torch.allclose(grad, case["grad"], rtol=1e-8, atol=1e-10 * float(scale))


def test_there_are_52_cases():
    assert len(CASES) == 52


@pytest.mark.parametrize("settings", [c for c in CASES if c["kind"] == "sdpo"], ids=lambda c: c["name"])
def test_sdpo(settings, arrays):
    case = _of(arrays, settings["name"])
    mask = case["response_mask"] * case["sample_mask"][:, None]
    weights = token_weights(mask, settings["aggregation"], counts(mask)).flatten()
    if "sampler_weights" in case:
        weights = weights * case["sampler_weights"].flatten()
    tokens, old = case["tokens"].flatten(), case["old_log_probs"].flatten()
    teacher = case["teacher_logits"].flatten(0, 1)

    def fn(logits, rows):
        form = {k: settings[k] for k in ("alpha", "top_k", "tail")} if settings["level"] == "logit" else {}
        found = vocabulary_pass(logits, tokens[rows], teacher[rows].contiguous(), **form, triton=TRITON)
        losses = token_credit(found.log_probs, found.teacher_log_probs) if not form else found.losses
        if settings["is_clip"] is not None:
            losses = losses * ratio_clip(found.log_probs, old[rows], settings["is_clip"])
        return (weights[rows] * losses).sum(), {}

    loss, grad, _ = _run(case["student_logits"], fn)
    _assert_matches(loss, grad, case)


@pytest.mark.parametrize("settings", [c for c in CASES if c["kind"] == "grpo"], ids=lambda c: c["name"])
def test_grpo(settings, arrays):
    case = _of(arrays, settings["name"])
    mask = case["response_mask"]
    advantages = torch.empty_like(case["rewards"])
    for group in case["group"].unique():
        member = case["group"] == group
        advantages[member] = group_advantages(case["rewards"][member], normalize_by_std=settings["normalize_by_std"])
    advantages = advantages[:, None] * mask
    torch.testing.assert_close(advantages, case["advantages"], rtol=1e-8, atol=1e-12)

    weights = token_weights(mask, settings["aggregation"], counts(mask)).flatten()
    if "sampler_weights" in case:
        weights = weights * case["sampler_weights"].flatten()
    tokens, old, flat = case["tokens"].flatten(), case["old_log_probs"].flatten(), advantages.flatten()
    clip = (settings["clip_low"], settings["clip_high"], settings["dual_clip"])

    def fn(logits, rows):
        log_probs = vocabulary_pass(logits, tokens[rows], triton=TRITON).log_probs
        losses = policy_gradient(log_probs, old[rows], flat[rows], *clip)
        _, dual = clip_masks(log_probs, old[rows], flat[rows], *clip)
        return (weights[rows] * losses).sum(), {"dual": dual}

    loss, grad, outputs = _run(case["student_logits"], fn)
    _assert_matches(loss, grad, case)
    if "dual_clip_fraction" in case:
        fraction = (outputs["dual"] * mask.flatten()).sum() / mask.sum()
        torch.testing.assert_close(fraction, case["dual_clip_fraction"], rtol=1e-8, atol=1e-12)
