"""The loss of a run on one chunk of logits: three streams, each a per-token loss times a per-token weight.

The weights carry coefficients, aggregation and normalisers (`sdpo.learner.rows`), so a chunk's contribution is a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sdpo.algorithms.base import LossPlan
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings
from sdpo.learner.credit import Wanted
from sdpo.losses.credit import sequence_credit, token_credit
from sdpo.losses.importance import ratio_clip, truncated_importance_weight
from sdpo.losses.policy import clip_masks, policy_gradient, reference_kl
from sdpo.losses.vocabulary import VocabularyPass, vocabulary_pass


@dataclass(frozen=True)
class Targets:
    """What the response tokens of a micro-batch are trained on.  Every tensor is [N]; floats are fp32."""

    tokens: torch.Tensor  # int64
    sampler_log_probs: torch.Tensor
    advantages: torch.Tensor
    policy_gradient_weight: torch.Tensor
    distillation_weight: torch.Tensor
    reference_weight: torch.Tensor
    old_log_probs: torch.Tensor | None  # None: one update per batch, the current policy is the old one
    reference_log_probs: torch.Tensor | None
    sequence_gap: torch.Tensor | None  # per token its response's mean of log π − log q (sequence-level credit)
    sequence_log_ratio: torch.Tensor | None  # per token its response's mean of log π − log π_old (GSPO)


TeacherLogits = Callable[[slice], torch.Tensor]  # [n, V] fp32, at the sampling temperature


def build_objective(
    plan: LossPlan,
    targets: Targets,
    teacher: TeacherLogits | None,
    triton: bool | None = None,
    wanted: Wanted | None = None,
):
    """`fn(logits [n, V], rows) -> (scalar, per-token outputs)` as `losses.projected_loss` wants it.

    `triton` as in `losses.vocabulary_pass`; `wanted`: tokens of which the alternatives are outputs too.
    """
    distils = plan.distillation is not None and teacher is not None
    form = _form(plan.distillation) if distils else {}

    def objective(logits: torch.Tensor, rows: slice):
        t = Targets(*(None if v is None else v[rows] for v in vars(targets).values()))
        theirs = None if teacher is None else teacher(rows)
        found = vocabulary_pass(logits, t.tokens, theirs, **form, triton=triton)
        old = found.log_probs.detach() if t.old_log_probs is None else t.old_log_probs
        outputs = {"log_probs": found.log_probs.detach(), "entropy": found.entropy.detach()}
        if theirs is not None:
            outputs |= {"teacher_entropy": found.teacher_entropy, "teacher_log_probs": found.teacher_log_probs}
        if wanted is not None:
            judge = None if theirs is None else (theirs, found.teacher_log_probs)
            outputs |= wanted.alternatives(rows, t.tokens, (logits, found.log_probs), judge)
        total = logits.new_zeros(())
        if plan.policy_gradient is not None:
            total = total + _policy_gradient(plan.policy_gradient, t, found, old, outputs)
        if distils:
            total = total + _distillation(plan.distillation, t, found, old, outputs)
        if plan.reference is not None:
            kl = reference_kl(found.log_probs, t.reference_log_probs, plan.reference.kind)
            outputs["reference_kl"] = kl.detach()
            total = total + (t.reference_weight * kl).sum()
        return total, outputs

    return objective


def _form(s: DistillationSettings) -> dict:
    """What the pass over the vocabulary computes of student and teacher: at the coarser levels log-probs only."""
    if s.level != "logit":
        return {}
    return {name: getattr(s, name) for name in ("alpha", "top_k", "tail", "support", "entry_clip", "advantage_clip")}


def _policy_gradient(s: PolicyGradientSettings, t: Targets, found: VocabularyPass, old, outputs) -> torch.Tensor:
    surrogate = {
        "log_probs": found.log_probs,
        "old_log_probs": old,
        "advantages": t.advantages,
        "clip_low": s.clip_low,
        "clip_high": s.clip_high,
        "dual_clip": None if s.variant == "cispo" else s.dual_clip,
        "variant": s.variant,
        "sequence_log_ratio": t.sequence_log_ratio,
    }
    loss = policy_gradient(**surrogate) * _sampler_weight(s.sampler_threshold, old, t.sampler_log_probs, outputs)
    if t.old_log_probs is not None:
        clipped, dual = clip_masks(**surrogate)
        outputs["clipped"], outputs["dual_clipped"] = clipped.float(), dual.float()
    if s.entropy_bonus:
        loss = loss - s.entropy_bonus * found.entropy
    return (t.policy_gradient_weight * loss).sum()


def _distillation(s: DistillationSettings, t: Targets, found: VocabularyPass, old, outputs) -> torch.Tensor:
    if s.level == "logit":
        loss = found.losses
    elif s.level == "token":
        loss = token_credit(found.log_probs, found.teacher_log_probs)
    else:
        loss = sequence_credit(found.log_probs, t.sequence_gap)
    outputs["distillation_loss"] = loss.detach()
    if s.is_clip is not None and t.old_log_probs is not None:
        outputs["policy_ratio"] = ratio_clip(found.log_probs, old, s.is_clip)
        loss = loss * outputs["policy_ratio"]
    sampler = _sampler_weight(s.sampler_threshold, old, t.sampler_log_probs, outputs)
    if s.layers is not None:
        outputs["layers_weight"] = t.distillation_weight * sampler * outputs.get("policy_ratio", 1.0)
    return (t.distillation_weight * loss * sampler).sum()


def _sampler_weight(threshold: float | None, old, sampler, outputs) -> torch.Tensor | float:
    """Truncated importance sampling between sampling engine and trainer, a thing apart from the policy ratio."""
    if threshold is None:
        return 1.0
    outputs["sampler_weight"] = truncated_importance_weight(old, sampler, threshold)
    return outputs["sampler_weight"]
