"""OPSD: the initial policy, shown the solution, teaches the policy on its own responses (arXiv 2601.18734)."""

from __future__ import annotations

from sdpo.algorithms.base import Distillation
from sdpo.config.schema import Recipe


class OPSD(Distillation):
    """Every response is distilled toward the frozen initial policy behind the problem and its solution; no reward.

    The published losses are settings of `distillation`: version 3 is alpha 0 (forward KL) with entry_clip .05, version
    1 alpha .5 (Jensen-Shannon), the sampled-token variant level=token (A = log q − log π).
    """

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.teacher is None or recipe.teacher.kind != "frozen":
            raise ValueError("opsd's teacher is the initial policy: set teacher.kind=frozen")
