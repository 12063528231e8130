"""From hidden states and output matrices straight to the divergence, at the memory of one chunk."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdpo.losses.chunked import check_inputs, project, projected_loss
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
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    student_softcap: float | None = None,
    teacher_softcap: float | None = None,
    tokens: Tensor | None = None,
    triton: bool | None = None,
    **options: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_i w_i·D(student_i, teacher_i) for output matrices applied to hidden states, and by-products of the same pass.

    student_hidden [N, H], student_weight [V, H], student_bias [V]     differentiable
    teacher_hidden [N, H'], teacher_weight [V, H'], teacher_bias [V]   constant; the sizes of the two models may differ
    token_weights  [N], see `aggregate.token_weights`
    tokens         [N]: the sampled tokens, for their log-probs
    alpha, options as in `divergence`; temperature divides both logits, after each was transformed as its model does
                   (logit_scale, bias, softcap: `projected_loss`)
    triton         as in `vocabulary_pass`: None chooses the kernels on a CUDA device, False forces plain PyTorch

    Returns the loss and, per token [N] and detached: "divergence", "student_entropy", "teacher_entropy" (nats); with
    `tokens` also "log_probs" and "teacher_log_probs".
    """
    theirs: dict[str, Any] = {"logit_scale": teacher_logit_scale, "bias": teacher_bias, "softcap": teacher_softcap}
    check_inputs(teacher_hidden, teacher_weight, chunk_tokens, temperature, **theirs)
    if teacher_hidden.shape[0] != student_hidden.shape[0] or teacher_weight.shape[0] != student_weight.shape[0]:
        raise ValueError(
            f"student ({student_hidden.shape[0]} tokens, vocabulary {student_weight.shape[0]}) and teacher "
            f"({teacher_hidden.shape[0]}, {teacher_weight.shape[0]}) must agree in tokens and vocabulary"
        )

    def chunk_loss(logits: Tensor, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        teacher = project(teacher_hidden[rows], teacher_weight, temperature, **theirs)
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
        bias=student_bias,
        softcap=student_softcap,
    )
