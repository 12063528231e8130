"""What an algorithm is: it routes every response token into up to three loss streams, and never sees logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from sdpo.context import ContextBuilder
from sdpo.errors import UserError
from sdpo.recipe import DistillationSettings, PolicyGradientSettings, Recipe, ReferenceSettings
from sdpo.types import Group, Sample, ScoredTokens, TeacherContext

WeightHook = Callable[[Sequence[ScoredTokens]], Sequence[np.ndarray | None]]


@dataclass(frozen=True)
class LossPlan:
    """L = Σ w_pg·PG / N_pg + Σ w_d·D(student, teacher) / N_d + Σ w_ref·KL(student, reference) / N_ref.

    Every N is counted over one whole optimiser batch, all ranks and micro-batches.  With `shared_normalizer` the
    policy-gradient and the distillation stream divide by one N: the tokens that carry either of them.

    `weight_hook` multiplies token weights of the distillation stream.  It is called with the responses of one whole
    optimiser batch, scored by student and teacher just before the update, so that it may normalise over all of them;
    it returns a factor [R] for each response, None for those that it leaves alone.  It costs that forward pass.  N does
    not follow the factors: a token that gets 0 still counts, unless the hook scales the others up.
    """

    policy_gradient: PolicyGradientSettings | None = None
    distillation: DistillationSettings | None = None
    reference: ReferenceSettings | None = None
    shared_normalizer: bool = False
    weight_hook: WeightHook | None = None

    def __post_init__(self) -> None:
        streams = (self.policy_gradient, self.distillation)
        if self.shared_normalizer and len({stream.aggregation for stream in streams if stream is not None}) > 1:
            raise UserError(
                "This algorithm has both streams under one normaliser: set policy_gradient.aggregation and "
                "distillation.aggregation to the same value."
            )

    def at(self, step: int) -> LossPlan:
        """The plan with the coefficients of one generation batch, counted from 1."""
        streams = ("policy_gradient", "distillation", "reference")
        return replace(self, **{n: s.at(step) for n in streams if (s := getattr(self, n)) is not None})


class Algorithm(Protocol):
    plan: LossPlan
    needs_rewards: bool  # False: training responses are not judged, and groups come without judgements

    def __init__(self, recipe: Recipe) -> None: ...

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        """One list of samples per group, in the order of its rollouts."""
        ...


def teacher_of(
    group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator, plan: LossPlan
) -> TeacherContext | None:
    """The teacher of a response; None without a context.  Every token weighs 1, the first `skip_tokens` nothing."""
    context = contexts.context(group, index, rng)
    if context is None:
        return None
    weight = np.ones(len(group.rollouts[index].response_ids), np.float32)
    weight[: 0 if plan.distillation is None else plan.distillation.skip_tokens] = 0
    return TeacherContext(contexts.reprompt(group.problem, context), weight)


class Distillation:
    """Every response that has a context goes to the distillation stream, and none anywhere else."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None
        self.needs_rewards = recipe.context.reads_judgements
        self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        return [self._group(group, contexts, rng) for group in groups]

    def _group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        return [
            Sample(**sample_of(group, i, self.plan), teacher=teacher_of(group, i, contexts, rng, self.plan))
            for i in range(len(group.rollouts))
        ]


def sample_of(group: Group, index: int, plan: LossPlan) -> dict[str, Any]:
    """The fields of a `Sample` that do not depend on the algorithm."""
    rollout = group.rollouts[index]
    return {
        "prompt_ids": rollout.prompt_ids,
        "response_ids": rollout.response_ids,
        "sampler_log_probs": rollout.sampler_log_probs,
        "reference_weight": np.ones(len(rollout.response_ids), np.float32) if plan.reference else None,
    }
