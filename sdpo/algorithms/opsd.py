"""OPSD: the initial policy, shown the solution, teaches the policy on its own responses (arXiv 2601.18734)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdpo.algorithms.base import LossPlan, distilled
from sdpo.context import ContextBuilder
from sdpo.recipe import Recipe
from sdpo.types import Group, Sample


class OPSD:
    """Every response is distilled toward the frozen initial policy behind the problem and its solution; no reward.

    The published losses are settings of `distillation`: version 3 is alpha 0 (forward KL) with entry_clip .05, version
    1 alpha .5 (Jensen-Shannon), the sampled-token variant level=token (A = log q − log π).
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None
        self.needs_rewards = recipe.context.reads_judgements
        self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [distilled(group, contexts, rng, self.plan) for group in groups]
