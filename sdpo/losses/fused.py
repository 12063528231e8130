"""Full-vocabulary divergences with their gradients in closed form.

Autograd would keep five or six tensors [n, V] per chunk for these formulas, beside both logits; the closed forms need
two (four for Jensen-Shannon), and give a gradient of exactly zero where teacher and student agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class FullDivergence(NamedTuple):
    """All [n].  Only `losses` is differentiable; the others fall out of the same pass (entropies in nats)."""

    losses: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor
    student_logsumexp: Tensor
    teacher_logsumexp: Tensor


def full_divergence(student: Tensor, teacher: Tensor, alpha: float) -> FullDivergence:
    """Divergence of two rows of logits [n, V] (finite, float32 or float64), differentiable in the student's.

    alpha 0: KL(teacher‖student); 1: KL(student‖teacher); between: (1−α)·KL(s‖m) + α·KL(t‖m) with m = (1−α)·s + α·t.

    Gradients by the student's logits, with p, q the two distributions:

        alpha 0      p − q
        alpha 1      p·(a − Σ p·a),   a = log p − log q     (SDPO, arXiv 2601.20802, Prop. 2.1: −a is the advantage)
        between      p·(a − Σ p·a),   a = (1−α)·(log p − log m)

    They sum to 0 over V, so log-probs can stand in for logits: log-softmax passes such a gradient through unchanged.
    """
    return FullDivergence(*_FullDivergence.apply(student, teacher.detach(), float(alpha)))


class _FullDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, alpha: float) -> tuple[Tensor, ...]:
        loss, gradient, *statistics = _FORMS.get(alpha, _jensen_shannon)(student, teacher, alpha)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(*statistics)
        return loss, *statistics

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_statistics: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_loss.unsqueeze(-1), None, None


# Each form returns loss, gradient, student and teacher entropy, student and teacher logsumexp, and overwrites its own
# tensors where it can: they are as large as the logits.


def _forward_kl(student: Tensor, teacher: Tensor, _alpha: float) -> tuple[Tensor, ...]:
    p, student_entropy, student_lse = softmax_statistics(student)
    del p
    q, teacher_entropy, teacher_lse = softmax_statistics(teacher)
    entries = (teacher - student).sub_((teacher_lse - student_lse).unsqueeze(-1)).mul_(q)
    loss = entries.sum(-1)
    gradient = torch.softmax(student, -1, out=entries).sub_(q)
    return loss, gradient, student_entropy, teacher_entropy, student_lse, teacher_lse


def _reverse_kl(student: Tensor, teacher: Tensor, _alpha: float) -> tuple[Tensor, ...]:
    q, teacher_entropy, teacher_lse = softmax_statistics(teacher)
    del q
    p, student_entropy, student_lse = softmax_statistics(student)
    entries = (student - teacher).sub_((student_lse - teacher_lse).unsqueeze(-1)).mul_(p)
    loss = entries.sum(-1)
    gradient = entries.addcmul_(p, loss.unsqueeze(-1), value=-1.0)
    return loss, gradient, student_entropy, teacher_entropy, student_lse, teacher_lse


def _jensen_shannon(student: Tensor, teacher: Tensor, alpha: float) -> tuple[Tensor, ...]:
    p, student_entropy, student_lse = softmax_statistics(student)
    q, teacher_entropy, teacher_lse = softmax_statistics(teacher)
    m = torch.lerp(p, q, alpha).clamp_(min=torch.finfo(p.dtype).tiny)
    teacher_part = _x_log_x_over_m(q, m).sum(-1).mul_(alpha)
    del q
    entries = _x_log_x_over_m(p, m).mul_(1.0 - alpha)
    student_part = entries.sum(-1)
    gradient = entries.addcmul_(p, student_part.unsqueeze(-1), value=-1.0)
    return student_part + teacher_part, gradient, student_entropy, teacher_entropy, student_lse, teacher_lse


_FORMS = {0.0: _forward_kl, 1.0: _reverse_kl}


def softmax_statistics(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [n, V], entropy [n], logsumexp [n]."""
    p = logits.softmax(-1)
    # The largest probability and its logit give the normaliser without another tensor of this size.
    logsumexp = logits.amax(-1) - p.amax(-1).log()
    mean_logit = torch.linalg.vecdot(p, logits)
    return p, logsumexp - mean_logit, logsumexp


def _x_log_x_over_m(x: Tensor, m: Tensor) -> Tensor:
    # Log of the quotient, not a difference of logs: exactly 0 where x = m, and no cancellation of large logs.
    # Where x underflows to 0 the product is to be 0·log(tiny) = 0, not 0·(−∞).
    return (x / m).clamp_(min=torch.finfo(x.dtype).tiny).log_().mul_(x)
