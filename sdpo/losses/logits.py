"""Small functions of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from sdpo.losses.divergence import divergence


def sampled_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log π of `tokens` [n] under `logits` [n, V]: [n]."""
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def mix_logits(reference_logits: Tensor, live_logits: Tensor, rate: float) -> Tensor:
    """(1−τ)·reference + τ·live [n, V]: logits of q ∝ q_ref^(1−τ)·q_live^τ.

    Trust-region teacher (SDPO, arXiv 2601.20802): `reference_logits` is the *initial* model and `live_logits` the
    current one, both behind the teacher's prompt.  Logits need no normalisation first: it would
    only add a constant per row.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; it must lie between 0 (reference) and 1 (live)")
    return (1 - rate) * reference_logits + rate * live_logits


def blended_logits(told: Tensor, untold: Tensor, largest: float, beta: float) -> Tensor:
    """Logits [n, V] of q^(1−α)·q̄^α, α = largest·2·(σ(β·s) − ½), s = JSD_.5(q̄, q) of each token, in nats.

    DemoPSD, arXiv 2607.02502: the more a hint changes, the more its teacher q (`told`, [n, V]) is drawn back to the
    same weights without the hint, q̄ (`untold`, [n, V]).
    """
    shift = largest * (2 * torch.sigmoid(beta * divergence(untold, told, 0.5)) - 1)
    return torch.lerp(told, untold, shift.unsqueeze(-1))
