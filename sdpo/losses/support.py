"""The K most likely entries of the vocabulary, as small distributions that stand for the large ones."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Support = Literal["student", "teacher"]


def top_k_log_probs(
    student: Tensor, teacher: Tensor, top_k: int, *, tail: bool, support: Support = "student"
) -> tuple[Tensor, Tensor]:
    """Log-probs of student and teacher at the top-K ids of one of them: (student [n, K'], teacher [n, K']).

    student, teacher  logits [n, V]
    tail              one more entry holds the rest of the mass, log max(1 − Σ top K, 1e−7), so K' = K + 1 and both
                      sum to 1 under the full vocabulary's normalisation.  Without it the K are renormalised, K' = K
    support           whose top K: the student's (SDPO, arXiv 2601.20802) or the teacher's (OPSD, arXiv 2601.18734)
    """
    ids = (student if support == "student" else teacher).detach().topk(top_k, dim=-1).indices
    return _restrict(student, ids, tail=tail), _restrict(teacher, ids, tail=tail)


def _restrict(logits: Tensor, ids: Tensor, *, tail: bool) -> Tensor:
    return complete(logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True), logits, ids, tail=tail)


def complete(log_probs: Tensor, logits: Tensor, ids: Tensor, *, tail: bool) -> Tensor:
    """A distribution [n, K'] from the log-probs [n, K] of the entries `ids` of `logits` [n, V], as above."""
    if not tail:
        return log_probs.log_softmax(-1)  # the full normaliser cancels
    found = _log_mass_outside(logits.data, ids)
    rest = found.clamp(min=_SMALLEST_TAIL)
    # Its gradient goes through the log-probs of the K entries: d log(1 − Σ p) = −Σ p·d log p / (1 − Σ p).
    slopes = (log_probs.detach() - rest).exp() * (found > _SMALLEST_TAIL)
    rest = rest - (slopes * (log_probs - log_probs.detach())).sum(-1, keepdim=True)
    return torch.cat([log_probs, rest], dim=-1)


_SMALLEST_TAIL = math.log(1e-7)  # of a distribution that is all in its top K, instead of log 0


def _log_mass_outside(logits: Tensor, ids: Tensor) -> Tensor:
    """[n, 1], summed over the other entries: where the K hold nearly all, 1 minus their sum has few digits left."""
    kept = logits.gather(-1, ids)
    logits.scatter_(-1, ids, -math.inf)  # for a moment, instead of a copy that is as large as the logits
    outside = logits.logsumexp(-1, keepdim=True)
    logits.scatter_(-1, ids, kept)
    return torch.nn.functional.logsigmoid(outside - kept.logsumexp(-1, keepdim=True))
