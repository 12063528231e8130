"""The whole of a recipe: its sections, what follows from them, and their checks.

A recipe is a YAML file that `sdpo.config.files` resolves (``extends``, profile, ``key=value``) and validates against
`Recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from sdpo.config import registry
from sdpo.config.checks import check
from sdpo.config.discovery import DiscoverySettings
from sdpo.config.guards import GuardSettings, ProbeSettings
from sdpo.config.names import check_file_name
from sdpo.config.sections import (
    AlgorithmSettings,
    ContextSettings,
    DataSettings,
    EnvironmentSettings,
    EvaluationSettings,
    LearnerSettings,
    ModelSettings,
    RolloutSettings,
    RunSettings,
    SandboxSettings,
    Settings,
    SupervisionSettings,
    TrackingSettings,
    UnknownAlgorithm,
    UnknownEnvironment,
)
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings, ReferenceSettings, TeacherSettings


class Recipe(Settings):
    recipe: str = Field(description="the family's name, e.g. livecodebench")
    name: str = Field(
        "",
        description="the run's name; empty: <recipe>-<algorithm>-seed<k>; `sdpo train` adds what differs",
    )
    seed: int = Field(
        0, ge=0, description="of sampling, of the order of tasks, and of environments that draw their own"
    )
    profile: Literal["cpu", "gpu"] = Field(
        "gpu", description="set by --profile, which takes that section of the recipe, too"
    )
    algorithm: SerializeAsAny[AlgorithmSettings] = Field(
        {}, validate_default=True, description="how responses become losses"
    )
    environment: SerializeAsAny[EnvironmentSettings] = Field(
        {}, validate_default=True, description="where tasks come from, and what responses are worth"
    )
    model: ModelSettings = Field(description="the policy")
    data: DataSettings = Field(
        DataSettings(), description="which tasks there are; an environment refuses options that it does not read"
    )
    context: ContextSettings = Field(ContextSettings(), description="what student and teacher are shown")
    rollout: RolloutSettings = Field(RolloutSettings(), description="how responses are sampled for training")
    sandbox: SandboxSettings = Field(
        SandboxSettings(), description="how programs are run; an environment without programs refuses it"
    )
    teacher: TeacherSettings | None = Field(
        None, description="who re-scores responses; present where the algorithm has a teacher"
    )
    distillation: DistillationSettings | None = Field(
        None,
        description="divergence of teacher and student (arXiv 2601.20802 §2–3); present where the algorithm has it",
    )
    policy_gradient: PolicyGradientSettings | None = Field(
        None, description="clipped surrogate of an advantage; present where the algorithm has it"
    )
    reference: ReferenceSettings | None = Field(None, description="KL to the initial policy; null: none")
    learner: LearnerSettings = Field(LearnerSettings(), description="optimiser and ranks")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="how pass@k is measured")
    discovery: DiscoverySettings = Field(
        DiscoverySettings(), description="of `sdpo discover` (arXiv 2601.20802 §5), which alone reads it"
    )
    run: RunSettings = Field(RunSettings(), description="length, checkpoints and folder of a run")
    probe: ProbeSettings = Field(ProbeSettings(), description="how policy and teacher are watched during training")
    guard: GuardSettings = Field(GuardSettings(), description="what an alarm leads to")
    supervision: SupervisionSettings = Field(
        SupervisionSettings(), description="how it is noticed that a part of a run is dead, stopped or hangs"
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="what is recorded, and where")

    @model_validator(mode="before")
    @classmethod
    def _what_follows(cls, values: Any, info: ValidationInfo) -> Any:
        """What need not be spelled out: the environment that a source of rows implies, and an algorithm's streams."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        environment, data = values.get("environment") or {}, values.get("data") or {}
        if not isinstance(environment, Mapping) or not isinstance(data, Mapping):
            return values  # refused as what they are
        environment, data = dict(environment), dict(data)
        environment.setdefault("kind", registry.SOURCES.get(str(data.get("source")), registry.DEFAULT_ENVIRONMENT))
        if data.get("source") is None and data.get("path") is None:
            own = (source for source, kind in registry.SOURCES.items() if kind == environment["kind"])
            data["source"] = next(own, None)
        values |= {"environment": environment, "data": data}
        algorithm = values.get("algorithm") or {}
        if isinstance(algorithm, dict):
            kind = algorithm_class(algorithm.get("name", registry.DEFAULT_ALGORITHM), _resolved(info))
            for section in () if kind is None else kind.sections(algorithm):
                if values.get(section) is None:
                    values[section] = {}
        return values

    @field_validator("algorithm", mode="before")
    @classmethod
    def _options_of_the_algorithm(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind = algorithm_class(value.get("name", registry.DEFAULT_ALGORITHM), _resolved(info))
        return (UnknownAlgorithm if kind is None else kind.Settings).model_validate(value)

    @field_validator("environment", mode="before")
    @classmethod
    def _options_of_the_environment(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind = environment_class(value.get("kind", registry.DEFAULT_ENVIRONMENT), _resolved(info))
        return (UnknownEnvironment if kind is None else kind.Settings).model_validate(value)

    @model_validator(mode="after")
    def _checks(self, info: ValidationInfo) -> Recipe:
        if not self.name:
            object.__setattr__(self, "name", f"{self.recipe}-{self.algorithm.label}-seed{self.seed}")
        for option, value in (("recipe", self.recipe), ("name", self.name)):
            check_file_name(option, value)
        check(self, _resolved(info))  # every default is spelled out in a resolved recipe
        return self

    @property
    def evaluation_samples(self) -> int:
        return 1 if self.evaluation.temperature == 0 else self.evaluation.samples

    @property
    def max_model_len(self) -> int:
        """Tokens that an engine must hold: the longest student prompt, and its turns with what is said between them."""
        longest = self.context.max_prompt_tokens + self.longest_response
        longest += self.later_turns(self.longest_response, self.most_turns)
        return min(longest, self.rollout.max_model_len or longest)

    @property
    def longest_response(self) -> int:
        return max(self.rollout.max_response_tokens, self.evaluation_tokens)

    def turns(self, purpose: Literal["training", "evaluation"] | None) -> int:
        """Most turns of a rollout; None: of one that is not graded, which is training's."""
        evaluated = self.evaluation.turns if purpose == "evaluation" else None
        return evaluated or self.environment.turns

    @property
    def most_turns(self) -> int:
        """Of any rollout."""
        return max(self.turns("training"), self.turns("evaluation"))

    def later_turns(self, response: int, turns: int) -> int:
        """Tokens by which the turns after the first may lengthen a conversation, with responses of so many tokens."""
        return (turns - 1) * (self.context.max_reply_tokens + response)

    @property
    def evaluation_tokens(self) -> int:
        return self.evaluation.max_response_tokens or self.rollout.max_response_tokens

    @property
    def weight_transfer(self) -> Literal["shared_memory", "nccl", "ipc"]:
        """How the learner's weights reach the engines (`sdpo.weights`)."""
        if self.profile == "cpu":
            return "shared_memory"
        return "ipc" if self.rollout.colocated else "nccl"

    @property
    def loads_adapter(self) -> bool:
        """Whether engines load the adapter beside the base model, instead of weights with the adapter in them."""
        return self.model.adapter is not None and self.rollout.adapter == "loaded"

    @property
    def searched_at_once(self) -> int:
        """Questions that `sdpo discover` searches side by side by training; 1: they take turns."""
        return self.discovery.questions_at_once if self.loads_adapter else 1

    @property
    def samples_per_step(self) -> int:
        return self.run.questions * self.rollout.responses

    @property
    def probe_tasks(self) -> int:
        """Training tasks of a probe."""
        answers = self.probe.samples * (1 if self.teacher is None else 2 + (self.teacher.refresh == "probe"))
        return self.probe.tasks or max(1, self.probe.every * self.samples_per_step // (40 * answers))

    @property
    def teacher_ranks(self) -> int:
        """Processes that compute the teacher and nothing else; 0: the learner's ranks do it."""
        return 0 if self.teacher is None or self.teacher.placement == "learner" else self.teacher.ranks

    def of_teacher(self) -> Recipe:
        """With the model that a teacher of its own computes in the place of the policy's."""
        if self.teacher is None or self.teacher.model is None:
            return self
        return self.model_copy(
            update={"model": self.model.model_copy(update={"path": self.teacher.model, "adapter": None})}
        )

    @property
    def layer_pairs(self) -> tuple[tuple[int, int], ...]:
        """Layers of student and teacher whose hidden states are compared."""
        return () if self.distillation is None or self.distillation.layers is None else self.distillation.layers.pairs

    @property
    def teacher_is_replaced(self) -> bool:
        """Whether something but a moving average may give the teacher other weights during the run."""
        return self.teacher is not None and (self.teacher.refresh is not None or self.guard.action == "rollback")

    @property
    def teacher_has_average(self) -> bool:
        """Whether the learner keeps weights for the teacher that may differ from those of the run's beginning."""
        return self.teacher is not None and (self.teacher.moves or self.teacher_is_replaced)

    @property
    def teacher_after_rollback(self) -> Literal["refresh", "freeze"]:
        frozen = self.teacher is not None and self.teacher.kind == "frozen"
        return self.guard.teacher or ("refresh" if frozen else "freeze")


def changed(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    """The recipe with other values of some options, given by their paths.

    Raises UserError or ValidationError where the options contradict each other.
    """
    values = recipe.model_dump()
    for option, value in change.items():
        *parents, leaf = option.split(".")
        part = values
        for name in parents:
            part = part[name]
        part[leaf] = value
    return Recipe.model_validate(values, context={"resolved": True})


def _resolved(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("resolved"))


def algorithm_class(name: str, resolved: bool = False) -> Any:
    """The class of an algorithm (`sdpo.algorithms.base.Algorithm`).  None: a resolved recipe names one that is gone."""
    return _class(registry.ALGORITHMS, name, "algorithm.name", resolved)


def environment_class(kind: str, resolved: bool = False) -> Any:
    """The class of an environment (`sdpo.envs.base.Environment`).  None: a resolved recipe names one that is gone."""
    return _class(registry.ENVIRONMENTS, kind, "environment.kind", resolved)


def _class(known: Mapping[str, str], name: str, option: str, resolved: bool) -> Any:
    try:
        return registry.resolve(known, str(name), option)
    except registry.NotImportable:
        if resolved:
            return None
        raise
