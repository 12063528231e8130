"""Algorithms from outside the package, as a recipe names them: `tests.helpers.algorithms:Alternating`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sdpo.algorithms import sdpo


class Alternating(sdpo.SDPO):
    """SDPO that learns from every second batch only: `assign` counts batches, the weight hook reads the count."""

    def __init__(self, recipe):
        super().__init__(recipe)
        self.batches = 0
        self.plan = replace(self.plan, weight_hook=self.every_second)

    def assign(self, groups, contexts, rng):
        self.batches += 1
        return super().assign(groups, contexts, rng)

    def every_second(self, scored):
        factor = 1.0 if self.batches % 2 == 0 else 0.0
        return [None if s.weight is None else np.full(len(s.weight), factor) for s in scored]
