"""The advantage clip as a multiple of the running mean of |A|, for batches that an older policy sampled."""

from __future__ import annotations

from dataclasses import replace

import torch

from sdpo.algorithms.base import LossPlan
from sdpo.learner.sums import ADVANTAGE, Sums

# Of the mean over one update's tokens in the running mean: an average over about ten updates.
_RATE = 0.1


class AdvantageClip:
    """c = factor · mean|A|, A = log q − log π (asynchronous SDPO; factor 3).

    |A| is averaged over the sampled tokens of the distillation stream: on-policy an unbiased estimate of its mean over
    the vocabulary, Σ_v π(v)·|A(v)|.
    The first update has no mean yet and is not clipped.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.mean: float | None = None

    def applied(self, plan: LossPlan) -> LossPlan:
        """The plan with the clip as it is now."""
        if not self.mean:
            return plan
        settings = plan.distillation.model_copy(update={"advantage_clip": self.factor * self.mean})
        return replace(plan, distillation=settings)

    def observe(self, sums: Sums, device: torch.device) -> None:
        """Take in one update's sums of this rank.  Collective; every rank has the same mean afterwards."""
        totals = torch.tensor(sums.totals[ADVANTAGE], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(totals)
        total, count = totals.tolist()
        if count:
            mean = total / count
            self.mean = mean if self.mean is None else self.mean + _RATE * (mean - self.mean)
