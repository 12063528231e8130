"""SDFT: a policy that is shown a demonstration teaches the one that is not (arXiv 2601.19897)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdpo.algorithms.base import LossPlan, distilled
from sdpo.context import ContextBuilder
from sdpo.recipe import Recipe
from sdpo.types import Group, Sample


class SDFT:
    """One response per prompt, distilled toward the moving average of the policy behind a demonstration; no reward.

    The first `distillation.skip_tokens` tokens (3) carry no loss: the teacher's first words speak of the demonstration
    ("Based on the text …"), which the policy does not see.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None
        self.needs_rewards = recipe.context.reads_judgements
        self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [distilled(group, contexts, rng, self.plan) for group in groups]
