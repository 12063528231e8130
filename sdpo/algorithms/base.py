"""What an algorithm is: it routes every response token into up to three loss streams, and never sees logits."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from sdpo.config.schema import Recipe
from sdpo.config.sections import AlgorithmSettings
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings, ReferenceSettings
from sdpo.errors import UserError
from sdpo.prompts.context import ContextBuilder, Told
from sdpo.prompts.sources import sibling_failures
from sdpo.types import Group, Rollout, Sample, ScoredTokens, TeacherContext, Turn

WeightHook = Callable[[Sequence[ScoredTokens]], Sequence[np.ndarray | None]]


class AdvantageHook(Protocol):
    """New advantages [R] of each response of one optimiser batch; None for those that it leaves alone."""

    def __call__(self, scored: Sequence[ScoredTokens]) -> Sequence[np.ndarray | None]: ...

    def at(self, step: int) -> AdvantageHook | None:
        """The hook of one generation batch, counted from 1; None: none is needed there."""


@dataclass(frozen=True)
class LossPlan:
    """L = Σ w_pg·PG / N_pg + Σ w_d·D(student, teacher) / N_d + Σ w_ref·KL(student, reference) / N_ref.

    Every N is counted over one whole optimiser batch, all ranks and micro-batches.  With `shared_normalizer` the
    policy-gradient and the distillation stream divide by one N: the tokens that carry either of them.

    `weight_hook` multiplies token weights of the distillation stream.  It is called with the responses of one whole
    optimiser batch, scored by student and teacher just before the update, so that it may normalise over all of them;
    it returns a factor [R] for each response, None for those that it leaves alone.  It costs that forward pass.  N does
    not follow the factors: a token that gets 0 still counts, unless the hook scales the others up.

    `advantage_hook` replaces advantages of the policy-gradient stream.  It sees the same, from the same pass.  A plan
    without a distillation stream asks its teacher in that pass only.

    `temperature` is what the loss divides logits by; None: by what they were divided by in sampling.
    """

    policy_gradient: PolicyGradientSettings | None = None
    distillation: DistillationSettings | None = None
    reference: ReferenceSettings | None = None
    shared_normalizer: bool = False
    weight_hook: WeightHook | None = None
    advantage_hook: AdvantageHook | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.shared_normalizer:
            return
        assert self.policy_gradient is not None and self.distillation is not None
        if self.policy_gradient.aggregation != self.distillation.aggregation:
            raise UserError(
                "This algorithm has both streams under one normaliser: set policy_gradient.aggregation and "
                "distillation.aggregation to the same value."
            )

    def at(self, step: int) -> LossPlan:
        """The plan with the coefficients and the advantage hook of one generation batch, counted from 1."""
        parts = ("policy_gradient", "distillation", "reference", "advantage_hook")
        return replace(self, **{n: s.at(step) for n in parts if (s := getattr(self, n)) is not None})


class Algorithm(ABC):
    """Built once per run: what `assign` remembers is what a weight hook of its plan sees.

    `Settings` are its own options, validated with the recipe's section `algorithm`.  `inert` are options that another
    setting makes meaningless: (option, when, how that is said).
    """

    Settings: ClassVar[type[AlgorithmSettings]] = AlgorithmSettings
    needs_rewards: bool = True  # False: training responses are not graded, and groups come without outcomes
    samples_itself: ClassVar[bool] = True  # False: its responses are the dataset's (`rollout.source`)
    replies: ClassVar[bool] = False  # True: its teacher reads the response and a reply to it, at one turn, too
    inert: ClassVar[tuple[tuple[str, Callable[[Recipe], bool], str], ...]] = ()
    plan: LossPlan

    @abstractmethod
    def __init__(self, recipe: Recipe) -> None: ...

    @classmethod
    @abstractmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Which of the recipe's sections teacher, distillation and policy_gradient it has, given its own options."""

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raises ValueError where the recipe contradicts what the algorithm needs."""
        if cls.samples_itself != (recipe.rollout.source == "policy"):
            raise ValueError(
                f"rollout.source={recipe.rollout.source} and {recipe.algorithm.name} do not go together; it "
                f"{'samples its responses; set rollout.source=policy' if cls.samples_itself else _NEEDS_SOURCE}"
            )

    @abstractmethod
    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        """One list of samples per group, in the order of its turns (`Group.turns`)."""

    def foreseen(self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        """The samples of group `index` of a batch whose other groups are not there yet, as far as they are known.

        A teacher of its own (`teacher.placement`) is asked for them meanwhile; none is no error.  rng: as `assign` will
        be given it, and not to be drawn from.
        """
        return []

    def told(
        self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator, turn: int
    ) -> Told | None:
        """What the teacher is told about a turn of rollout `index`, which probes ask, too; None: there is nothing."""
        return contexts.told(group, index, rng, turn)

    def teachers_of(
        self,
        group: Group,
        contexts: ContextBuilder,
        rng: np.random.Generator,
        wanted: Callable[[Turn], bool] = lambda turn: True,
    ) -> list[TeacherContext | None]:
        """The teacher of every turn of the group, as `told` has it; None where there is no hint, or none is wanted.

        Every token weighs 1, the first `skip_tokens` of a turn nothing, nor those after `prefix_tokens`.
        """
        counted = slice(0, None)
        if self.plan.distillation is not None:
            counted = slice(self.plan.distillation.skip_tokens, self.plan.distillation.prefix_tokens)
        teachers: list[TeacherContext | None] = []
        for index, rollout in enumerate(group.rollouts):
            for number, turn in enumerate(rollout.turns):
                heard = self.told(group, index, contexts, rng, number) if wanted(turn) else None
                if heard is None or turn.ungradable:
                    teachers.append(None)
                    continue
                weight = np.zeros(len(turn.response_ids), np.float32)
                weight[counted] = 1
                teachers.append(TeacherContext(heard.prompt_ids, weight, heard.hint))
        return teachers

    def state_dict(self) -> dict[str, Any]:
        """What `assign` remembers for later batches, in JSON's types: a copy, which is saved with each checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 — most remember nothing
        """Remember that, and nothing else; an empty one is that of a run's beginning."""


_NEEDS_SOURCE = "imitates the dataset's demonstrations; set rollout.source=solution or column"


class PerGroup(Algorithm):
    """An algorithm that looks at one group at a time.

    Each group of a batch has draws of its own, so that it does not matter which group is there first.
    """

    def assign(self, groups: Sequence[Group], contexts: ContextBuilder, rng: np.random.Generator) -> list[list[Sample]]:
        key = _key(rng)
        return [self.assign_group(group, contexts, _draws(key, index)) for index, group in enumerate(groups)]

    def foreseen(self, group: Group, index: int, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        return self.assign_group(group, contexts, _draws(_key(copy.deepcopy(rng)), index))

    @abstractmethod
    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]: ...


def _key(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _draws(key: int, index: int) -> np.random.Generator:
    return np.random.default_rng([key, index])


class Distillation(PerGroup):
    """Every response that has a teacher's context goes to the distillation stream, and none anywhere else."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.distillation is not None
        self.needs_rewards = recipe.context.reads_outcomes
        self.plan = LossPlan(distillation=recipe.distillation, reference=recipe.reference)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "distillation")

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.context.demonstration not in ("solution", "column"):
            raise ValueError(
                f"{recipe.algorithm.label} shows the teacher a text of the dataset: set context.demonstration to "
                "solution or column"
            )
        if recipe.teacher is not None and recipe.teacher.refresh == "reward" and not recipe.context.reads_outcomes:
            raise ValueError(
                f"teacher.refresh=reward needs the rewards of training responses, which {recipe.algorithm.label} with "
                "these settings does without; set teacher.refresh=probe"
            )

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        return samples_of(group, self.plan, teachers=self.teachers_of(group, contexts, rng))


class Likelihood(PerGroup):
    """Maximum likelihood of some of the responses.

    Every token of theirs has advantage 1, so that the policy gradient −A·log π is the negative log-likelihood.
    """

    temperature: ClassVar[float | None] = 1.0  # whatever they were sampled at; None: as they were sampled
    inert = tuple(
        (f"policy_gradient.{option}", lambda recipe: True, "on a likelihood: it compares no responses")
        for option in ("normalize_by_std", "drop_uniform_groups", "returns")
    )

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.policy_gradient is not None
        self.plan = LossPlan(recipe.policy_gradient, reference=recipe.reference, temperature=self.temperature)

    @classmethod
    def sections(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("policy_gradient",)

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        gradient = recipe.policy_gradient
        if gradient is not None and (gradient.variant != "reinforce" or gradient.sampler_threshold is not None):
            raise ValueError(
                f"{recipe.algorithm.label} maximises a likelihood, which has no ratio: set "
                "policy_gradient.variant=reinforce and policy_gradient.sampler_threshold=null"
            )

    def assign_group(self, group: Group, contexts: ContextBuilder, rng: np.random.Generator) -> list[Sample]:
        chosen = self.chosen(group, rng)
        ones = [
            np.ones(len(turn.response_ids), np.float32) if wanted else None
            for turn, wanted in zip(group.turns, chosen, strict=True)
        ]
        return samples_of(group, self.plan, advantages=ones)

    @abstractmethod
    def chosen(self, group: Group, rng: np.random.Generator) -> Sequence[bool]:
        """Of each of `Group.turns`, whether its likelihood counts."""


def contrasted(
    group: Group,
    teachers: Sequence[TeacherContext | None],
    contexts: ContextBuilder,
    pick: Callable[[list[Rollout]], Sequence[Rollout]],
) -> list[TeacherContext | None]:
    """The teachers of a group's turns, each also behind prompts that show failures of its siblings as demonstrations.

    pick: which of a rollout's siblings that failed.
    """
    found: list[TeacherContext | None] = []
    each = iter(teachers)
    for index, rollout in enumerate(group.rollouts):
        picked = pick(sibling_failures(group, index))
        hints = [hint for failure in picked if (hint := contexts.shown(failure)) is not None]
        for number, _ in enumerate(rollout.turns, start=1):
            teacher = next(each)
            if teacher is not None:
                prompts = tuple(contexts.reprompt(group.task, hint, rollout.turns[:number]) for hint in hints)
                teacher = replace(teacher, contrasts=prompts)
            found.append(teacher)
    return found


def samples_of(
    group: Group,
    plan: LossPlan,
    *,
    advantages: Sequence[np.ndarray | None] | None = None,
    teachers: Sequence[TeacherContext | None] | None = None,
) -> list[Sample]:
    """What each turn of the group trains on; the reference KL, where the plan has one, is on every token.

    advantages, teachers: one for each of `Group.turns`; None: for none of them.
    """
    numbers = [number for rollout in group.rollouts for number, _ in enumerate(rollout.turns, start=1)]
    nothing = [None] * len(numbers)
    return [
        Sample(
            prompt_ids=turn.prompt_ids,
            response_ids=turn.response_ids,
            sampler_log_probs=turn.sampler_log_probs,
            advantages=advantage,
            teacher=teacher,
            reference_weight=np.ones(len(turn.response_ids), np.float32)
            if plan.reference is not None and not turn.ungradable
            else None,
            turn=number,
        )
        for turn, number, advantage, teacher in zip(
            group.turns, numbers, advantages or nothing, teachers or nothing, strict=True
        )
    ]
