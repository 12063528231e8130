"""From hidden states and output matrices straight to the divergence, or to log-probs, at the memory of one chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdpo.losses.chunked import GradientSums, check_inputs, chunks, project, projected_loss
from sdpo.losses.vocabulary import vocabulary_pass


def linear_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    token_weights: Tensor,
    *,
    alpha: float,
    chunk_tokens: int,
    temperature: float = 1.0,
    student_logit_scale: float = 1.0,
    teacher_logit_scale: float = 1.0,
    tokens: Tensor | None = None,
    triton: bool | None = None,
    **options: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_i w_i·D(student_i, teacher_i) for output matrices applied to hidden states, and by-products of the same pass.

    student_hidden [N, H], student_weight [V, H]    differentiable
    teacher_hidden [N, H'], teacher_weight [V, H']  constant; the sizes of the two models may differ
    token_weights  [N], see `aggregate.token_weights`
    tokens         [N]: the sampled tokens, for their log-probs
    alpha, options as in `divergence`; temperature divides both logits, after each was multiplied with its model's
                   logit_scale (`projected_loss`)
    triton         as in `vocabulary_pass`: None chooses the kernels on a CUDA device, False forces plain PyTorch

    Returns the loss and, per token [N] and detached: "divergence", "student_entropy", "teacher_entropy" (nats); with
    `tokens` also "log_probs" and "teacher_log_probs".
    """
    check_inputs(teacher_hidden, teacher_weight, chunk_tokens, temperature, teacher_logit_scale)
    if teacher_hidden.shape[0] != student_hidden.shape[0] or teacher_weight.shape[0] != student_weight.shape[0]:
        raise ValueError(
            f"student ({student_hidden.shape[0]} tokens, vocabulary {student_weight.shape[0]}) and teacher "
            f"({teacher_hidden.shape[0]}, {teacher_weight.shape[0]}) must agree in tokens and vocabulary"
        )

    def chunk_loss(logits: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        teacher = project(teacher_hidden[rows], teacher_weight, temperature, teacher_logit_scale)
        found = vocabulary_pass(
            logits, None if tokens is None else tokens[rows], teacher, alpha, triton=triton, **options
        )
        outputs = {
            "divergence": found.losses,
            "student_entropy": found.entropy,
            "teacher_entropy": found.teacher_entropy,
        }
        if tokens is not None:
            outputs |= {"log_probs": found.log_probs, "teacher_log_probs": found.teacher_log_probs}
        return (found.losses * token_weights[rows]).sum(), outputs

    return projected_loss(
        student_hidden,
        student_weight,
        chunk_loss,
        chunk_tokens=chunk_tokens,
        temperature=temperature,
        logit_scale=student_logit_scale,
    )


def linear_log_prob(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    chunk_tokens: int,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    triton: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """log π of `tokens` [N], differentiable in `hidden` [N, H] and `weight` [V, H], and the entropies [N], detached.

    For losses that are no weighted sum known beforehand.  The backward pass computes the logits a second time; a loss
    that `projected_loss` can express saves that product.  `temperature` and `logit_scale` as in `projected_loss`,
    `triton` as in `vocabulary_pass`.
    """
    check_inputs(hidden, weight, chunk_tokens, temperature, logit_scale)
    log_probs, entropies = _LinearLogProb.apply(hidden, weight, tokens, chunk_tokens, temperature / logit_scale, triton)
    return log_probs, entropies


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        chunk_tokens: int,
        temperature: float,
        triton: bool | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, tokens)
        ctx.settings = chunk_tokens, temperature, triton
        pairs = []
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in chunks(hidden.shape[0], chunk_tokens):
                found = vocabulary_pass(project(hidden[rows], weight, temperature), tokens[rows], triton=triton)
                pairs.append((found.log_probs, found.entropy))
        log_probs, entropies = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, _grad_entropies: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens = ctx.saved_tensors
        chunk_tokens, temperature, triton = ctx.settings
        gradients = GradientSums(hidden, weight, temperature, *ctx.needs_input_grad[:2])
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in chunks(hidden.shape[0], chunk_tokens):
                logits = project(hidden[rows], weight, temperature).requires_grad_()
                with torch.enable_grad():
                    log_probs = vocabulary_pass(logits, tokens[rows], triton=triton).log_probs
                (grad_logits,) = torch.autograd.grad(log_probs, logits, grad_log_probs[rows])
                del logits, log_probs
                gradients.add(rows, grad_logits)
        grad_weight = None if gradients.weight is None else gradients.weight.to(weight.dtype)
        return gradients.hidden, grad_weight, None, None, None, None
