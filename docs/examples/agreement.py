"""GRPO, and beside it distillation of the tokens on which teacher and reward agree: an algorithm outside the package.

Where a response was better than its group, the teacher is followed in what it likes more than the policy does; where it
was worse, in what it likes less.  Run it with `PYTHONPATH=docs/examples sdpo train docs/examples/agreement.yaml`.
"""

import numpy as np
from pydantic import Field

from sdpo.algorithms.base import LossPlan, PerGroup, samples_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.config.sections import AlgorithmSettings


class Agreement(PerGroup):
    class Settings(AlgorithmSettings):
        margin: float = Field(0.0, ge=0, description="nats by which teacher and policy must differ")
        doubt: float = Field(0.0, ge=0, lt=1, description="weight of the tokens on which they do not agree")

    def __init__(self, recipe):
        self.settings = recipe.algorithm
        streams = recipe.policy_gradient, recipe.distillation, recipe.reference
        self.plan = LossPlan(*streams, shared_normalizer=True, weight_hook=self.where_they_agree)

    @classmethod
    def sections(cls, settings):
        return "teacher", "distillation", "policy_gradient"

    def assign_group(self, group, contexts, rng):
        advantages = response_advantages(group, self.plan.policy_gradient)
        teachers = self.teachers_of(group, contexts, rng)
        return samples_of(group, self.plan, advantages=advantages, teachers=teachers)

    def where_they_agree(self, scored):
        """1 where log q − log π has the sign of the advantage; responses without a teacher are left alone."""
        return [None if s.log_ratio is None or s.advantages is None else self._factor(s) for s in scored]

    def _factor(self, s):
        agree = (s.log_ratio * s.advantages > 0) & (np.abs(s.log_ratio) >= self.settings.margin)
        return np.where(agree, 1.0, self.settings.doubt)
