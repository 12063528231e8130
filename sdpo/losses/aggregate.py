"""Per-token weights, so that every loss is Σ w·ℓ over the tokens at hand.

The counts in the denominators belong to the whole global batch: all ranks, all accumulation steps, of one stream or of
several that share a normaliser.  The loss then cannot depend on how the batch was cut into micro-batches or packed,
and a response without loss does not dilute the mean.

Masks may be NumPy arrays or torch tensors, [R] for one response or [B, R] for several (the last dimension is one
response's tokens, padding anywhere): a token counts where its entry is not 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "fixed-length"]

# The released SDPO code divides a response's sum by its count plus this.
_EPSILON = 1e-8


@dataclass(frozen=True)
class Counts:
    """Tokens that carry loss, and responses that have at least one such token."""

    tokens: int = 0
    responses: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tokens + other.tokens, self.responses + other.responses)


def counts(masks: Iterable[Any]) -> Counts:
    """Counts of responses given by their masks: an iterable of [R], or an array [B, R].  Add them up over ranks."""
    per_response = [int((mask != 0).sum()) for mask in masks]
    return Counts(tokens=sum(per_response), responses=sum(n > 0 for n in per_response))


def token_weights(mask: Any, mode: Aggregation, totals: Counts, *, fixed_length: int | None = None) -> Any:
    """Weights of the same shape and kind as `mask`; 0 where the mask is 0.  n: the response's tokens that count.

    token-mean           1 / totals.tokens
    seq-mean-token-mean  1 / ((n + 1e−8) · totals.responses)
    seq-mean-token-sum   1 / totals.responses
    fixed-length         1 / (fixed_length · totals.responses), a constant for every token of every batch of that many
                         responses (Dr. GRPO, arXiv 2503.20783); `fixed_length` is the response budget in tokens

    NumPy: float64, torch: the mask's dtype if it is a floating one, else float32.
    """
    if (fixed_length is not None) != (mode == "fixed-length"):
        raise ValueError("fixed_length belongs to mode 'fixed-length', which needs it")
    here = _as_float(mask != 0, mask)
    if totals.tokens == 0:
        if bool((mask != 0).any()):
            raise ValueError("totals count no token although the mask has some; pass the counts of the whole batch")
        return here
    if mode == "token-mean":
        return here / totals.tokens
    if mode == "seq-mean-token-sum":
        return here / totals.responses
    if fixed_length is not None:
        return here / (fixed_length * totals.responses)
    if mode == "seq-mean-token-mean":
        return here / ((here.sum(-1)[..., None] + _EPSILON) * totals.responses)
    raise ValueError(
        f"mode is {mode!r}; it must be 'token-mean', 'seq-mean-token-mean', 'seq-mean-token-sum' or 'fixed-length'"
    )


def _as_float(truth: Any, mask: Any) -> Any:
    if hasattr(mask, "astype"):  # NumPy
        return truth.astype("float64")
    return truth.to(mask.dtype) if mask.is_floating_point() else truth.float()
