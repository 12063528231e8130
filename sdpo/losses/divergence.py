"""Distillation of whole distributions: one divergence per token, no gradient to the teacher."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo.losses.fused import full_divergence
from sdpo.losses.support import Support, top_k_log_probs


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float,
    top_k: int | None = None,
    tail: bool = True,
    *,
    support: Support = "student",
    entry_clip: float | None = None,
    advantage_clip: float | None = None,
) -> Tensor:
    """Per-token divergence [n] between two rows of logits [n, V] (finite values), differentiable in the student's.

    alpha           0: forward KL(t‖s) = Σ_v q·log(q/π);  1: reverse KL(s‖t) = Σ_v π·log(π/q);  between: generalised
                    Jensen-Shannon (1−α)·KL(s‖m) + α·KL(t‖m), m = (1−α)·s + α·t.  The interpolated form tends to 0 at
                    both ends, so the ends are cases of their own.  (SDPO, arXiv 2601.20802)
    top_k, tail     None: full vocabulary.  K: the K likeliest entries and one entry for the rest (`tail`), or the K
                    entries renormalised.  K ≥ V is the full vocabulary.
    support         whose K likeliest: "student" (SDPO) or "teacher" (OPSD, arXiv 2601.18734)
    entry_clip      c: every entry's contribution is at most c, forward KL: Σ_v min(q·log(q/π), c) (OPSD, version 3,
                    c = .05)
    advantage_clip  c, alpha = 1 only: −Σ_v stopgrad(π·clip(log q − log π, −c, c))·log π over the same support.  Where
                    the clip does not act this has the gradient, not the value, of the reverse KL.

    Half-precision inputs are raised to float32.  ValueError: an option out of its range, or without effect here.
    """
    check_options(alpha, top_k, support, entry_clip, advantage_clip)
    student, teacher = _raise(student_logits), _raise(teacher_logits).detach()
    if top_k is None or top_k >= student.shape[-1]:
        if entry_clip is None and advantage_clip is None:
            return full_divergence(student, teacher, alpha).losses
        student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    else:
        student, teacher = top_k_log_probs(student, teacher, top_k, tail=tail, support=support)
    return support_divergence(student, teacher, alpha, entry_clip, advantage_clip)


def support_divergence(
    student: Tensor,
    teacher: Tensor,
    alpha: float,
    entry_clip: float | None = None,
    advantage_clip: float | None = None,
) -> Tensor:
    """`divergence` [n] between log-probs [n, K'] over the same entries."""
    if advantage_clip is not None:
        return _advantage_form(student, teacher, advantage_clip)
    entries = _entries(student, teacher, alpha)
    if entry_clip is not None:
        entries = entries.clamp(max=entry_clip)
    return entries.sum(-1)


def _raise(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _entries(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Contribution of every entry of the support, from log-probs."""
    if alpha == 0:
        return teacher.exp() * (teacher - student)
    if alpha == 1:
        return student.exp() * (student - teacher)
    mixture = torch.logaddexp(student + math.log1p(-alpha), teacher + math.log(alpha))
    return (1 - alpha) * student.exp() * (student - mixture) + alpha * teacher.exp() * (teacher - mixture)


def _advantage_form(student: Tensor, teacher: Tensor, clip: float) -> Tensor:
    constant = student.detach()
    advantages = (teacher - constant).clamp(-clip, clip)
    return -(constant.exp() * advantages * student).sum(-1)


def check_options(
    alpha: float,
    top_k: int | None,
    support: str,
    entry_clip: float | None,
    advantage_clip: float | None,
) -> None:
    """ValueError: an option of `divergence` out of its range, or without effect."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 (forward KL) and 1 (reverse KL)")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1, or None for the full vocabulary")
    if support not in ("student", "teacher"):
        raise ValueError(f"support is {support!r}; it must be 'student' or 'teacher'")
    if entry_clip is not None and entry_clip <= 0:
        raise ValueError(f"entry_clip is {entry_clip}; it must be positive")
    if advantage_clip is not None:
        if advantage_clip <= 0:
            raise ValueError(f"advantage_clip is {advantage_clip}; it must be positive")
        if alpha != 1:
            raise ValueError(f"advantage_clip needs alpha = 1 (reverse KL), not {alpha}")
        if entry_clip is not None:
            raise ValueError("advantage_clip cannot be combined with entry_clip")
