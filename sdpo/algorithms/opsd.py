"""OPSD: the initial policy, shown the solution, teaches the policy on its own responses (arXiv 2601.18734)."""

from __future__ import annotations

from sdpo.algorithms.base import Distillation


class OPSD(Distillation):
    """Every response is distilled toward the frozen initial policy behind the problem and its solution; no reward.

    The published losses are settings of `distillation`: version 3 is alpha 0 (forward KL) with entry_clip .05, version
    1 alpha .5 (Jensen-Shannon), the sampled-token variant level=token (A = log q − log π).
    """
