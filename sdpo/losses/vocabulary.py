"""Everything about a row of logits that takes a look at the whole vocabulary, in one pass: the one place where the
plain form and the Triton form are chosen between."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdpo.losses.divergence import check_options, divergence, support_divergence
from sdpo.losses.fused import full_divergence, softmax_statistics
from sdpo.losses.support import Support, complete


class VocabularyPass(NamedTuple):
    """All [n].  The first three are differentiable with respect to the student's logits."""

    log_probs: Tensor | None  # of the given tokens
    entropy: Tensor  # nats
    losses: Tensor | None = None
    teacher_log_probs: Tensor | None = None
    teacher_entropy: Tensor | None = None


def vocabulary_pass(
    logits: Tensor,
    tokens: Tensor | None,
    teacher: Tensor | None = None,
    alpha: float | None = None,
    *,
    top_k: int | None = None,
    tail: bool = True,
    support: Support = "student",
    entry_clip: float | None = None,
    advantage_clip: float | None = None,
    triton: bool | None = None,
) -> VocabularyPass:
    """Log-probs of `tokens` [n], entropies, and the divergence from `teacher`, of logits [n, V] (float32, float64).

    teacher  [n, V], constant.  With `alpha` None only its log-probs and entropies are computed
    alpha and the options after it as in `divergence.divergence`
    triton   None: the kernels on a CUDA device, PyTorch elsewhere.  True and False force one of them.  The kernels'
             backward pass writes the gradient over `logits`, so these must not be used afterwards
    """
    if alpha is not None:
        check_options(alpha, top_k, support, entry_clip, advantage_clip)
    run = _kernels() if uses_triton(logits, triton) else plain_pass
    ids = logits.new_empty(logits.shape[0], 0, dtype=torch.int64) if tokens is None else tokens.unsqueeze(-1)
    if alpha is None or top_k is None or top_k >= logits.shape[-1]:
        found = run(logits, ids, teacher, alpha, entry_clip, advantage_clip)
        log_probs, entropy, losses, teacher_log_probs, teacher_entropy = found
    else:
        assert teacher is not None
        top = (logits if support == "student" else teacher).detach().topk(top_k, dim=-1).indices
        both = torch.cat([top, ids], -1)
        log_probs, entropy, _, teacher_log_probs, teacher_entropy = run(logits, both, teacher, None)
        scored = (log_probs, logits), (teacher_log_probs, teacher)
        own, target = (complete(x[:, :top_k], z, top, tail=tail) for x, z in scored)
        losses = support_divergence(own, target, alpha, entry_clip, advantage_clip)
        log_probs, teacher_log_probs = log_probs[:, top_k:], teacher_log_probs[:, top_k:]
    if tokens is None:
        return VocabularyPass(None, entropy, losses, None, teacher_entropy)
    theirs = None if teacher_log_probs is None else teacher_log_probs.squeeze(-1)
    return VocabularyPass(log_probs.squeeze(-1), entropy, losses, theirs, teacher_entropy)


def uses_triton(tensor: Tensor, triton: bool | None) -> bool:
    return tensor.is_cuda and importlib.util.find_spec("triton") is not None if triton is None else triton


def _kernels() -> Any:
    try:
        from sdpo.losses import kernels
    except ImportError as error:
        raise ImportError("the Triton form of the losses needs triton; install it, or pass triton=False") from error
    return kernels.triton_pass


def plain_pass(
    logits: Tensor,
    ids: Tensor,
    teacher: Tensor | None,
    alpha: float | None,
    entry_clip: float | None = None,
    advantage_clip: float | None = None,
) -> tuple[Any, ...]:
    """(log-probs at `ids` [n, K], entropy [n], divergence over the full vocabulary [n], and the teacher's first two).

    What was not asked for is None: the teacher's without a teacher, the divergence without `alpha`.
    """
    if teacher is None:
        return *_LogProbsAt.apply(logits, ids, None, None), None, None, None
    if alpha is None or entry_clip is not None or advantage_clip is not None:
        losses = None
        if alpha is not None:
            losses = divergence(
                logits, teacher, alpha,
                entry_clip=entry_clip, advantage_clip=advantage_clip,
            )  # fmt: skip
        with torch.no_grad():
            theirs = _LogProbsAt.apply(teacher, ids, None, None)
        return *_LogProbsAt.apply(logits, ids, None, None), losses, *theirs
    found = full_divergence(logits, teacher, alpha)
    own = _LogProbsAt.apply(logits, ids, found.student_entropy, found.student_logsumexp)
    teacher_log_probs = teacher.gather(-1, ids) - found.teacher_logsumexp.unsqueeze(-1)
    return *own, found.losses, teacher_log_probs, found.teacher_entropy


class _LogProbsAt(torch.autograd.Function):
    """Log-probs [n, K] of the entries `ids`, and entropies [n]; entropy and logsumexp may be known already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, entropy: Any, logsumexp: Any) -> tuple[Tensor, Tensor]:
        if entropy is None:
            _, entropy, logsumexp = softmax_statistics(logits)
        ctx.save_for_backward(logits, ids, entropy, logsumexp)
        ctx.set_materialize_grads(False)
        return logits.gather(-1, ids) - logsumexp.unsqueeze(-1), entropy.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_log_probs: Any, g_entropy: Any) -> tuple[Tensor | None, ...]:
        logits, ids, entropy, logsumexp = ctx.saved_tensors
        p = logits.softmax(-1)
        # d log p(k) / d z = onehot(k) − p;   d entropy / d z = −p·(log p + entropy)
        sums: Any = None if g_log_probs is None else g_log_probs.sum(-1, keepdim=True)
        if g_entropy is None:
            gradient = p.mul_(-sums)
        else:
            gradient = (logits - (logsumexp - entropy).unsqueeze(-1)).mul_(-g_entropy.unsqueeze(-1))
            gradient = (gradient if sums is None else gradient.sub_(sums)).mul_(p)
        if g_log_probs is not None:
            gradient.scatter_add_(-1, ids, g_log_probs)
        return gradient, None, None, None
