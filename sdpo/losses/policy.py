"""Policy-gradient losses and estimators of the KL to a reference policy, per sampled token.

All tensors are [n].  With old_log_probs None the batch is on-policy: the ratio is 1 and only its gradient remains.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["ppo", "gspo", "cispo", "reinforce"]
KLEstimator = Literal["k1", "k2", "k3"]

# Bound on |log ratio|: beyond it exp() is only a way to overflow.
_MAX_LOG_RATIO = 20.0


def policy_gradient(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    variant: Variant = "ppo",
    *,
    sequence_log_ratio: Tensor | None = None,
) -> Tensor:
    """Loss per token from the sampled token's log π, log π_old and advantage A.

    With r = π/π_old and clip(r) = clip(r, 1 − clip_low, 1 + clip_high):

    ppo    max(−A·r, −A·clip(r)), and where A < 0 at most −A·dual_clip (DeepSeekMath, arXiv 2402.03300; clip-higher:
           DAPO, arXiv 2503.14476; dual clip: arXiv 1912.09729)
    gspo   the same with the ratio of the sequence, s = exp(mean_t(log π − log π_old)), whose gradient reaches each
           token as stopgrad(s)·π/stopgrad(π) (GSPO-token, arXiv 2507.18071).  `sequence_log_ratio` [n] holds log s of
           the token's response, from a pass without gradient.  With seq-mean-token-mean weights and one advantage per
           response, this is GSPO's objective.  Published clips: 3e-4 and 4e-4.
    cispo  −stopgrad(clip(r))·A·log π: no token loses its gradient (MiniMax-M1, arXiv 2506.13585).  clip_low = 1
           leaves the weight without a lower bound; the dual clip has no meaning here and must be None.
    reinforce  −A·log π, without ratio and clips (Williams 1992).  With A = 1 on given tokens: their negative
           log-likelihood.
    """
    _check(variant, dual_clip, sequence_log_ratio)
    if variant == "reinforce":
        return -advantages * log_probs
    ratio = _ratio(log_probs, old_log_probs, variant, sequence_log_ratio)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    if variant == "cispo":
        return -clipped.detach() * advantages * log_probs
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is None:
        return losses
    return torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)


def clip_masks(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    variant: Variant = "ppo",
    *,
    sequence_log_ratio: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which tokens the clip and which the dual clip acts on, bool [n] each; arguments as in `policy_gradient`.

    For cispo the first says where the weight was clipped; the second is all False.  For reinforce both are.
    """
    _check(variant, dual_clip, sequence_log_ratio)
    if variant == "reinforce":
        nowhere = torch.zeros_like(log_probs, dtype=torch.bool)
        return nowhere, nowhere
    ratio = _ratio(log_probs.detach(), old_log_probs, variant, sequence_log_ratio)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    if variant == "cispo":
        return clipped != ratio, torch.zeros_like(ratio, dtype=torch.bool)
    surrogate = -advantages * ratio
    bounded = torch.maximum(surrogate, -advantages * clipped)
    dual = torch.zeros_like(ratio, dtype=torch.bool)
    if dual_clip is not None:
        dual = (advantages < 0) & (bounded > -advantages * dual_clip)
    return bounded > surrogate, dual


def _ratio(log_probs: Tensor, old: Tensor | None, variant: Variant, sequence_log_ratio: Tensor | None) -> Tensor:
    if variant == "gspo":
        assert sequence_log_ratio is not None
        # Value of the sequence's ratio, gradient of the token's log-prob.
        log_ratio = sequence_log_ratio.detach() + (log_probs - log_probs.detach())
    else:
        log_ratio = log_probs - (log_probs.detach() if old is None else old)
    return torch.exp(log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def _check(variant: Variant, dual_clip: float | None, sequence_log_ratio: Tensor | None) -> None:
    if variant not in ("ppo", "gspo", "cispo", "reinforce"):
        raise ValueError(f"variant is {variant!r}; it must be 'ppo', 'gspo', 'cispo' or 'reinforce'")
    if (sequence_log_ratio is not None) != (variant == "gspo"):
        raise ValueError("sequence_log_ratio belongs to variant 'gspo', which needs it")
    if dual_clip is not None and variant == "cispo":
        raise ValueError("dual_clip has no effect with variant 'cispo'; set it to None")
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip is {dual_clip}; it must be greater than 1")


def reference_kl(log_probs: Tensor, ref_log_probs: Tensor, kind: KLEstimator = "k3") -> Tensor:
    """Estimate per sampled token of KL(π‖π_ref); d = log π_ref − log π (J. Schulman, "Approximating KL divergence"):

    k1  −d              unbiased value; its gradient as a loss has mean zero on-policy, so use it for measuring
    k2  d²/2            biased value; on-policy its gradient is that of the KL
    k3  exp(d) − 1 − d  unbiased value, never negative (GRPO, arXiv 2402.03300); d is clamped to ±20

    For the exact KL use `divergence` with the reference's logits and alpha = 1.
    """
    difference = ref_log_probs - log_probs
    if kind == "k1":
        return -difference
    if kind == "k2":
        return 0.5 * difference.square()
    if kind == "k3":
        difference = difference.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
        return torch.expm1(difference) - difference
    raise ValueError(f"kind is {kind!r}; it must be 'k1', 'k2' or 'k3'")
