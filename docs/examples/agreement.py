"""GRPO, and beside it distillation of the tokens on which teacher and reward agree: an algorithm outside the package.

Where a response was better than its group, the teacher is followed in what it likes more than the policy does; where it
was worse, in what it likes less.  Run it with `PYTHONPATH=docs/examples sdpo train docs/examples/agreement.yaml`.
"""

from sdpo.algorithms.base import LossPlan, sample_of, teacher_of
from sdpo.algorithms.grpo import response_advantages
from sdpo.types import Sample


class Agreement:
    needs_rewards = True

    def __init__(self, recipe):
        self.plan = LossPlan(
            recipe.policy_gradient,
            recipe.distillation,
            recipe.reference,
            shared_normalizer=True,
            weight_hook=where_they_agree,
        )

    def assign(self, groups, contexts, rng):
        return [self._group(group, contexts, rng) for group in groups]

    def _group(self, group, contexts, rng):
        advantages = response_advantages(group, self.plan.policy_gradient)
        return [
            Sample(
                **sample_of(group, i, self.plan), advantages=a, teacher=teacher_of(group, i, contexts, rng, self.plan)
            )
            for i, a in enumerate(advantages)
        ]


def where_they_agree(scored):
    """1 where log q − log π has the sign of the advantage, else 0; responses without a teacher are left alone."""
    return [None if s.log_ratio is None or s.advantages is None else s.log_ratio * s.advantages > 0 for s in scored]
