"""The K most likely entries of the vocabulary, as small distributions that stand for the large ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Support = Literal["student", "teacher"]


def top_k_log_probs(
    student: Tensor, teacher: Tensor, top_k: int, *, tail: bool, support: Support = "student"
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of student and teacher at the top-K ids of one of them: (student [n, K'], teacher [n, K'], ids [n, K]).

    student, teacher  logits [n, V]
    tail              one more entry holds the rest of the mass, log(−expm1(clamp(logsumexp(top K), max=−1e−7))), so
                      K' = K + 1 and both sum to 1 over the *full* vocabulary's normalisation.  Without it the K entries
                      are renormalised, K' = K.
    support           whose top K: the student's (SDPO, arXiv 2601.20802) or the teacher's (OPSD, arXiv 2601.18734)
    """
    ids = (student if support == "student" else teacher).detach().topk(top_k, dim=-1).indices
    return _restrict(student, ids, tail=tail), _restrict(teacher, ids, tail=tail), ids


def _restrict(logits: Tensor, ids: Tensor, *, tail: bool) -> Tensor:
    top = logits.gather(-1, ids)
    if tail:
        top = top - logits.logsumexp(-1, keepdim=True)
    return complete(top, tail=tail)


def complete(log_probs: Tensor, *, tail: bool) -> Tensor:
    """A distribution [n, K'] from the log-probs [n, K] of K entries of a larger one, as in `top_k_log_probs`."""
    if not tail:
        return log_probs.log_softmax(-1)  # the full normaliser cancels
    # The clamp keeps the rest of a distribution that is all in its top K at 1e−7 instead of log 0.
    rest = torch.log(-torch.expm1(log_probs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)))
    return torch.cat([log_probs, rest], dim=-1)
