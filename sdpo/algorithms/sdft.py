"""SDFT: a policy that is shown a demonstration teaches the one that is not (arXiv 2601.19897)."""

from __future__ import annotations

from sdpo.algorithms.base import Distillation


class SDFT(Distillation):
    """One response per prompt, distilled toward the moving average of the policy behind a demonstration; no reward.

    The first `distillation.skip_tokens` tokens (3) carry no loss: the teacher's first words speak of the demonstration
    ("Based on the text …"), which the policy does not see.
    """
