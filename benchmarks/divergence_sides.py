"""The ways to get from hidden states and output matrices to the divergence's gradients that are compared.

Each is a function (student hidden [N, H], student matrix [V, H], teacher hidden, teacher matrix, alpha, chunk_tokens)
→ mean divergence over the N tokens, differentiable in the first two.  Needs torch, and Liger-Kernel for its own two.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sdpo.losses.linear import linear_divergence

Side = Callable[[Tensor, Tensor, Tensor, Tensor, float, int], Tensor]

OURS, PLAIN = "linear_divergence", "full logits"


def full_logits(hidden, weight, teacher_hidden, teacher_weight, alpha, _chunk_tokens) -> Tensor:
    """The formula as one writes it down, on all logits at once."""
    student, teacher = _logits(hidden, weight, teacher_hidden, teacher_weight)
    return _divergence(F.log_softmax(student, -1), F.log_softmax(teacher, -1), alpha).mean()


def top_k(k: int) -> Side:
    """As released with SDPO (arXiv 2601.20802) and in TRL: all logits, the student's top K of them, a tail bucket."""

    def side(hidden, weight, teacher_hidden, teacher_weight, alpha, _chunk_tokens) -> Tensor:
        student, teacher = _logits(hidden, weight, teacher_hidden, teacher_weight)
        normaliser = student.logsumexp(-1, keepdim=True)
        top, ids = student.topk(k, dim=-1)
        s = _with_tail(top - normaliser)
        t = _with_tail(teacher.gather(-1, ids) - teacher.logsumexp(-1, keepdim=True))
        return _divergence(s, t, alpha).mean()

    return side


def ours(k: int | None = None) -> Side:
    """This project's: one chunk of logits at a time, the whole vocabulary or the student's top K with a tail."""
    options = {} if k is None else {"top_k": k}

    def side(hidden, weight, teacher_hidden, teacher_weight, alpha, chunk_tokens) -> Tensor:
        weights = torch.full((len(hidden),), 1 / len(hidden), dtype=torch.float64, device=hidden.device)
        weights = weights.to(hidden.dtype if hidden.dtype == torch.float64 else torch.float32)
        inputs = (hidden, weight, teacher_hidden, teacher_weight, weights)
        tokens = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)  # their log-probs come with the pass
        return linear_divergence(*inputs, alpha=alpha, chunk_tokens=chunk_tokens, tokens=tokens, **options)[0]

    return side


def liger_chunked(chunk: int | None) -> Side:
    """Liger-Kernel's LigerFusedLinearJSDLoss, compiled as it is by default; chunk None: its default of 1,024 rows."""

    def side(hidden, weight, teacher_hidden, teacher_weight, alpha, chunk_tokens) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        size = {} if chunk is None else {"chunk_size": chunk or chunk_tokens}
        loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=alpha, **size)
        labels = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        return loss(hidden, weight, teacher_hidden, teacher_weight, labels)

    return side


def liger_triton(hidden, weight, teacher_hidden, teacher_weight, alpha, _chunk_tokens) -> Tensor:
    """Liger-Kernel's LigerFusedLinearJSD, which calls a Triton kernel per chunk."""
    from liger_kernel.transformers import LigerFusedLinearJSD

    return LigerFusedLinearJSD(jsd_beta=alpha)(hidden, weight, teacher_hidden, teacher_weight, None)


SIDES: dict[str, Side] = {
    PLAIN: full_logits,
    "full logits, top 20": top_k(20),
    "full logits, top 100": top_k(100),
    "Liger, chunked": liger_chunked(None),
    "Liger, chunked, our chunk": liger_chunked(0),
    "Liger, Triton": liger_triton,
    OURS: ours(),
    "linear_divergence, top 20": ours(20),
}
# What a side is compared with in float64: its own formula, for a top-K side that of the top K.
FORMULA: dict[str, Side] = {name: full_logits for name in SIDES} | {
    "full logits, top 20": top_k(20),
    "full logits, top 100": top_k(100),
    "linear_divergence, top 20": top_k(20),
}


def make_inputs(tokens: int, hidden: int, vocabulary: int, dtype=torch.float32, device="cpu") -> tuple[Tensor, ...]:
    """Student and a teacher that is close to it, as in self-distillation; logits have a standard deviation of 4."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).mul_(scale).to(dtype)

    states, matrix = normal(tokens, hidden, scale=4.0), normal(vocabulary, hidden, scale=hidden**-0.5)
    teacher_states = states + normal(tokens, hidden, scale=1.0)
    teacher_matrix = normal(vocabulary, hidden, scale=0.1 * hidden**-0.5).add_(matrix)
    return states.requires_grad_(), matrix.requires_grad_(), teacher_states, teacher_matrix


def relative_errors(
    name: str, alpha: float, chunk_tokens: int, shape: dict[str, int], dtype=torch.float32, device="cpu"
) -> dict[str, float]:
    """Of a side's loss and gradients against its own formula in float64, on inputs of `dtype`."""
    values = []
    for function, computed_in in ((SIDES[name], dtype), (FORMULA[name], torch.float64)):
        inputs = make_inputs(**shape, dtype=dtype, device=device)
        inputs = tuple(x.detach().to(computed_in).requires_grad_(x.requires_grad) for x in inputs)
        loss = function(*inputs, alpha, chunk_tokens)
        loss.backward()
        values.append([x.double() for x in (loss.detach(), inputs[0].grad, inputs[1].grad)])
        del inputs
    names = ("loss", "gradient of hidden states", "gradient of matrix")
    return {n: float((a - b).norm() / b.norm()) for n, a, b in zip(names, *values, strict=True)}


def _logits(hidden, weight, teacher_hidden, teacher_weight) -> tuple[Tensor, Tensor]:
    """float32 (float64 for float64 inputs), as the released code computes losses."""
    with torch.no_grad():
        teacher = teacher_hidden @ teacher_weight.t()
    student = hidden @ weight.t()
    return tuple(x if x.dtype == torch.float64 else x.float() for x in (student, teacher))


def _with_tail(log_probs: Tensor) -> Tensor:
    rest = torch.log(-torch.expm1(log_probs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)))
    return torch.cat([log_probs, rest], -1)


def _divergence(s: Tensor, t: Tensor, alpha: float) -> Tensor:
    if alpha == 0:
        return F.kl_div(s, t, reduction="none", log_target=True).sum(-1)
    if alpha == 1:
        return F.kl_div(t, s, reduction="none", log_target=True).sum(-1)
    mix = torch.tensor(alpha, dtype=s.dtype, device=s.device)
    m = torch.logsumexp(torch.stack([s + torch.log1p(-mix), t + torch.log(mix)]), dim=0)
    to_student = F.kl_div(m, s, reduction="none", log_target=True)
    to_teacher = F.kl_div(m, t, reduction="none", log_target=True)
    return torch.lerp(to_student, to_teacher, mix).sum(-1)
