"""SFT: maximum likelihood of the dataset's demonstrations, what SDFT is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdpo.algorithms.base import Likelihood
from sdpo.types import Group


class SFT(Likelihood):
    """The responses are the demonstrations themselves (`rollout.source`); nothing is sampled or graded in training."""

    needs_rewards = False
    samples_itself = False
    temperature = None

    def chosen(self, group: Group, rng: np.random.Generator) -> Sequence[bool]:
        return [True] * len(group.turns)
