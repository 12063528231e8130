"""Every option of a run, with its one default and the checks that keep options honest.

A recipe is a YAML file that `sdpo.recipe_files` resolves (``extends``, profile, ``key=value``) and validates against
`Recipe`.  Unknown keys are errors.  So are options that would have no effect: an explicitly set value that another
setting makes inert is refused rather than ignored (see `INERT`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

REMOVE = "remove it from the recipe, or set it to null"

# The sections that feed each algorithm's streams.  One from outside the package has those that its recipe spells out.
_TAUGHT = ("teacher", "distillation")
ALGORITHM_STREAMS: dict[str, tuple[str, ...]] = {
    "sdpo": _TAUGHT,
    "grpo": ("policy_gradient",),
    "srpo": (*_TAUGHT, "policy_gradient"),
    "opsd": _TAUGHT,
    "sdft": _TAUGHT,
    "sft": ("policy_gradient",),
}


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Settings):
    path: str = Field(description="a Hugging Face model folder, or a hub name")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    thinking: bool | None = Field(None, description="enable_thinking of the chat template; null leaves its default")


class DataSettings(Settings):
    source: Literal["livecodebench", "minicode"] = "livecodebench"
    path: str | None = Field(None, description="folder or file of LiveCodeBench JSONL; null downloads from the hub")
    release: str | None = Field(
        None,
        description="release_v1 … release_v6: the first N official files; v6: that file; null: all files of data.path, "
        "or the newest release of the hub",
    )
    window: tuple[date, date] | None = Field(None, description="contest dates [from, to); null keeps all")
    exclude_ungradable: bool = Field(False, description="leave out problems that no comparison can grade")
    test_split: Literal["published", "official", "disjoint", "public-private"] = "published"
    problem_split: Literal["none", "hash", "marked"] = Field(
        "none", description="none: evaluate on the training problems; hash: hold problems out; marked: as rows say"
    )
    held_out_fraction: float = Field(0.25, gt=0, lt=1)
    world_seed: int | None = Field(
        None, ge=0, description="minicode: gives its words their secret meanings; null: the run's seed"
    )
    families: tuple[Literal["minicode", "minicode-texts"], ...] = Field(
        ("minicode",),
        min_length=1,
        description="minicode: tasks learned one after the other, an equal share of the steps each",
    )
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="fraction of unreadable rows that stops the run")


class ContextSettings(Settings):
    template: Literal["published", "compact", "sdft", "opsd"] = "published"
    max_prompt_tokens: int = Field(2048, ge=8)
    max_reprompt_tokens: int = Field(10240, ge=8, description="the teacher's whole prompt, header included")
    demonstration: Literal["random", "solution", "column", "none"] = Field(
        "random",
        description="random: another success of the group; solution: the problem's reference program; column: a column "
        "of the dataset",
    )
    column: str | None = Field(None, description="the dataset's column that holds demonstrations")
    teacher_thinking: bool | None = Field(
        None, description="enable_thinking of the teacher's prompt; null: as model.thinking"
    )
    feedback: Literal["fallback", "always", "never"] = Field(
        "fallback", description="show environment feedback: only without a demonstration, always, or never"
    )
    feedback_noise: float = Field(
        0.0, ge=0, le=1, description="share of failed responses that get the feedback on another question's failure"
    )
    remove_thinking: bool = Field(True, description="strip <think>…</think> from demonstrations")

    @property
    def reads_judgements(self) -> bool:
        """Whether anything that a teacher is told depends on how responses were judged."""
        return self.demonstration == "random" or self.feedback != "never"


class RolloutSettings(Settings):
    responses: int = Field(8, ge=1, description="responses per question (the group size n)")
    source: Literal["policy", "solution", "column"] = Field(
        "policy", description="policy: sampled; solution, column: the dataset's demonstration is the response"
    )
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all")
    max_response_tokens: int = Field(8192, ge=1)
    engines: int = Field(1, ge=1)
    tensor_parallel_size: int = Field(1, ge=1)
    max_num_seqs: int = Field(256, ge=1, description="sequences that one engine decodes at once")
    gpu_memory_utilization: float = Field(0.85, gt=0, lt=1)
    enforce_eager: bool = False
    colocated: bool = Field(False, description="engine i shares GPU i with learner rank i, and sleeps while it learns")
    staleness: int = Field(
        0, ge=0, description="batches sampled ahead while the learner works, and versions they may lag; 0: on-policy"
    )
    cpu_threads: int = Field(2, ge=1, description="threads of a CPU engine")
    weight_bucket_mb: int = Field(256, ge=1, description="size of one bucket of a weight update")


class SandboxSettings(Settings):
    workers: int | None = Field(None, ge=1, description="null: one per core")
    isolation: Literal["auto", "namespaces", "landlock", "seccomp", "none"] = "auto"
    cpu_time_s: float = Field(6.0, gt=0)
    memory_mb: int = Field(1024, ge=16)
    feedback_from: Literal["first_failure", "all"] = Field(
        "first_failure", description="stop at the first failing test, or run them all for the feedback"
    )


class TeacherSettings(Settings):
    kind: Literal["ema", "trust_region", "frozen", "live"] = "ema"
    rate: float | None = Field(None, gt=0, le=1, description="EMA: τ of θ' ← (1−τ)θ' + τθ; trust region: mixing τ")
    clock: Literal["batch", "update"] | None = Field(
        None, description="EMA: move once per generation batch (as released) or per optimiser step"
    )

    @model_validator(mode="after")
    def _needs(self) -> TeacherSettings:
        moves = self.kind in ("ema", "trust_region")
        if moves and self.rate is None:
            object.__setattr__(self, "rate", 0.01)
        if not moves and self.rate is not None:
            raise ValueError(f"teacher.rate has no effect with teacher.kind={self.kind}; {REMOVE}")
        if self.kind == "ema" and self.clock is None:
            object.__setattr__(self, "clock", "batch")
        if self.kind != "ema" and self.clock is not None:
            raise ValueError(f"teacher.clock has no effect with teacher.kind={self.kind}; {REMOVE}")
        return self


Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "fixed-length"]


class Ramp(Settings):
    """A factor that goes from `start` to `end` in equal steps over the first `steps` generation batches, and stays."""

    start: float = Field(1.0, ge=0)
    end: float = Field(1.0, ge=0)
    steps: int = Field(ge=1)

    @model_validator(mode="after")
    def _moves(self) -> Ramp:
        if self.start == self.end:
            raise ValueError(f"a ramp from {self.start:g} to {self.end:g} has no effect; set start or end")
        return self

    def at(self, step: int) -> float:
        """The factor of the generation batch `step`, counted from 1."""
        return self.start + (self.end - self.start) * min(1.0, (step - 1) / self.steps)


class StreamSettings(Settings):
    """What every loss stream has."""

    coefficient: float = Field(1.0, gt=0)
    ramp: Ramp | None = Field(None, description="the coefficient's factor over the run; null: 1")

    def at(self, step: int) -> StreamSettings:
        """These settings with the coefficient of one generation batch."""
        if self.ramp is None:
            return self
        return self.model_copy(update={"coefficient": self.coefficient * self.ramp.at(step)})


class DistillationSettings(StreamSettings):
    """The divergence between student and teacher (arXiv 2601.20802 §2–3); defaults: its LiveCodeBench settings."""

    level: Literal["logit", "token", "sequence"] = "logit"
    alpha: float = Field(1.0, ge=0, le=1, description="0 forward KL, 1 reverse KL, between: Jensen-Shannon")
    top_k: int | None = Field(20, ge=1, description="entries of the student's top-K; null: full vocabulary")
    tail: bool = Field(True, description="one bucket for the rest; false renormalises the K entries")
    support: Literal["student", "teacher"] = Field("student", description="whose top-K")
    entry_clip: float | None = Field(None, gt=0, description="cap of every vocabulary entry's contribution")
    skip_tokens: int = Field(0, ge=0, description="first tokens of a response that carry no loss")
    advantage_clip: float | None = Field(None, gt=0, description="clipped-advantage form: |log q − log π| ≤ c")
    is_clip: float | None = Field(2.0, gt=0, description="cap of the policy ratio over several updates per batch")
    sampler_threshold: float | None = Field(2.0, gt=0, description="cap of the trainer/sampler ratio")
    aggregation: Aggregation = "token-mean"


class PolicyGradientSettings(StreamSettings):
    """The clipped surrogate (METHODS: GRPO as strong as published)."""

    variant: Literal["grpo", "gspo", "cispo", "reinforce"] = "grpo"
    normalize_by_std: bool = False
    clip_low: float = Field(0.2, gt=0)
    clip_high: float = Field(0.28, gt=0)
    dual_clip: float | None = Field(3.0, gt=1)
    sampler_threshold: float | None = Field(2.0, gt=0, description="truncated importance sampling")
    aggregation: Aggregation = "token-mean"
    entropy_bonus: float = Field(0.0, ge=0)
    drop_uniform_groups: bool = Field(False, description="DAPO: groups without spread do not count in the normaliser")


class ReferenceSettings(StreamSettings):
    coefficient: float = Field(gt=0)
    kind: Literal["k1", "k2", "k3"] = "k3"
    aggregation: Aggregation = "token-mean"


class AlgorithmSettings(Settings):
    name: str = Field("sdpo", description=f"{', '.join(ALGORITHM_STREAMS)}, or module:Class of one of your own")
    mix: float | None = Field(
        None, gt=0, lt=1, description="sdpo: λ of λ·A_GRPO + (1−λ)·A_SDPO, with one normaliser for both"
    )
    entropy_beta: float | None = Field(None, ge=0, description="srpo: β of the token weight exp(−β·H_teacher)")

    @model_validator(mode="after")
    def _known(self) -> AlgorithmSettings:
        if self.name not in ALGORITHM_STREAMS and not re.fullmatch(r"[\w.]+:\w+", self.name):
            near = difflib.get_close_matches(self.name, ALGORITHM_STREAMS, 1)
            raise ValueError(
                f"algorithm.name={self.name} is unknown.{f' Did you mean {near[0]}?' if near else ''} "
                f"Known: {', '.join(ALGORITHM_STREAMS)}; one of your own is given as module:Class"
            )
        if self.name == "srpo" and self.entropy_beta is None:
            object.__setattr__(self, "entropy_beta", 1.0)
        return self

    @property
    def label(self) -> str:
        """What the algorithm is called in names of runs and in reports."""
        return self.name.split(":")[-1].lower()


class LearnerSettings(Settings):
    ranks: int = Field(1, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 1
    lr: float = Field(1e-6, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    clip_grad_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0, description="optimiser steps")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    updates_per_batch: int = Field(1, ge=1, description="optimiser steps per generation batch (mini-batches)")
    micro_batch_tokens: int = Field(
        16384, ge=1, description="tokens packed into one pass on one rank; a shared prompt counts once"
    )
    chunk_tokens: int = Field(1024, ge=1, description="response tokens whose logits exist at the same time")
    triton: bool = Field(True, description="loss kernels in Triton; false: plain PyTorch")
    gradient_checkpointing: bool = False
    cpu_threads: int = Field(2, ge=1, description="threads of a CPU rank")


class EvaluationSettings(Settings):
    every: int = Field(10, ge=0, description="steps between evaluations; 0: only at the end")
    samples: int = Field(4, ge=1, description="responses per problem")
    temperature: float = Field(0.6, ge=0, description="0: greedy, one response per problem")
    top_p: float = Field(0.95, gt=0, le=1)
    ks: tuple[int, ...] = (1, 4)
    at_start: bool = True
    training_problems: bool = Field(False, description="measure the training problems too, on their evaluation tests")


class RunSettings(Settings):
    steps: int = Field(80, ge=1, description="generation batches")
    questions: int = Field(32, ge=1, description="questions per generation batch")
    checkpoint_every: int = Field(10, ge=1)
    keep_checkpoints: int = Field(1, ge=0, description="older checkpoints kept beside last and best")
    directory: str = "runs"


class TrackingSettings(Settings):
    wandb: Literal["auto", "online", "offline", "disabled"] = Field("auto", description="auto: online with an account")
    project: str = "sdpo"


class Recipe(Settings):
    recipe: str = Field(description="the family's name, e.g. livecodebench")
    name: str = Field("", description="the run's name; empty: <recipe>-<algorithm>-seed<k>")
    seed: int = Field(0, ge=0)
    profile: Literal["cpu", "gpu"] = "gpu"
    algorithm: AlgorithmSettings = AlgorithmSettings()
    model: ModelSettings
    data: DataSettings = DataSettings()
    context: ContextSettings = ContextSettings()
    rollout: RolloutSettings = RolloutSettings()
    sandbox: SandboxSettings = SandboxSettings()
    teacher: TeacherSettings | None = None
    distillation: DistillationSettings | None = None
    policy_gradient: PolicyGradientSettings | None = None
    reference: ReferenceSettings | None = None
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    run: RunSettings = RunSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="before")
    @classmethod
    def _streams_of_the_algorithm(cls, values: Any) -> Any:
        """An algorithm's streams exist without being spelled out; streams that it does not have are refused below."""
        if isinstance(values, dict) and isinstance(values.get("algorithm") or {}, dict):
            values = dict(values)
            for section in _streams(values.get("algorithm") or {}, ()):
                if values.get(section) is None:
                    values[section] = {}
        return values

    @model_validator(mode="after")
    def _checks(self, info: ValidationInfo) -> Recipe:
        if not self.name:
            object.__setattr__(self, "name", f"{self.recipe}-{self.algorithm.label}-seed{self.seed}")
        sections = ("teacher", "distillation", "policy_gradient")
        wanted = _streams(self.algorithm.model_dump(), sections)
        for section in sections:
            if getattr(self, section) is not None and section not in wanted:
                raise ValueError(
                    f"{section} has no effect with algorithm.name={self.algorithm.name}"
                    f"{' without algorithm.mix' if self.algorithm.name == 'sdpo' else ''}; {REMOVE}"
                )
        resolved = bool(info.context and info.context.get("resolved"))  # every default is spelled out there
        if not resolved:
            idle = {
                path: f"{path} has no effect {reason}"
                for path, inert, reason in INERT
                if _explicitly_set(self, path) and inert(self)
            }
            if idle:
                raise ValueError(f"{'; '.join(idle.values())}. {REMOVE[0].upper() + REMOVE[1:]}: {', '.join(idle)}")
        if self.run.questions % self.learner.updates_per_batch:
            raise ValueError(
                f"learner.updates_per_batch={self.learner.updates_per_batch} must divide "
                f"run.questions={self.run.questions}: mini-batches are whole groups"
            )
        if 1 not in self.evaluation.ks or min(self.evaluation.ks) < 1:
            raise ValueError("evaluation.ks must hold 1 (the best checkpoint is chosen by pass@1) and nothing below it")
        if max(self.evaluation.ks) > self.evaluation_samples:
            raise ValueError(
                f"evaluation.ks asks for pass@{max(self.evaluation.ks)} from {self.evaluation_samples} samples; "
                "raise evaluation.samples (greedy decoding, temperature 0, gives one)"
            )
        if self.model.dtype == "bfloat16" and self.learner.zero_stage == 0:
            raise ValueError(
                "model.dtype=bfloat16 needs fp32 master weights, which learner.zero_stage=0 does not keep; set "
                "learner.zero_stage=1 (the same thing on one rank)"
            )
        if self.model.attention == "flash_attention_2" and (self.profile, self.model.dtype) != ("gpu", "bfloat16"):
            raise ValueError("model.attention=flash_attention_2 needs profile gpu and model.dtype=bfloat16")
        one_normalizer = self.algorithm.mix is not None or self.algorithm.name == "srpo"
        if one_normalizer and self.policy_gradient.aggregation != self.distillation.aggregation:
            what = "algorithm.mix weighs advantages" if self.algorithm.mix is not None else "srpo has both streams"
            raise ValueError(
                f"{what} under one normaliser: set policy_gradient.aggregation and distillation.aggregation to the "
                "same value"
            )
        if self.distillation is not None and self.teacher is None:
            raise ValueError("distillation needs a teacher; add the section teacher (teacher={} for its defaults)")
        self._check_source()
        if self.algorithm.name in ("opsd", "sdft") and self.context.demonstration not in ("solution", "column"):
            raise ValueError(
                f"{self.algorithm.name} shows the teacher a text of the dataset: set context.demonstration to solution "
                "or column"
            )
        if self.algorithm.name == "opsd" and self.teacher.kind != "frozen":
            raise ValueError("opsd's teacher is the initial policy: set teacher.kind=frozen")
        if self.rollout.colocated and not resolved and "gpu_memory_utilization" not in self.rollout.model_fields_set:
            raise ValueError(
                "rollout.colocated shares each GPU with the learner: set rollout.gpu_memory_utilization to what the "
                "learner's weights and optimiser leave free (`--dry-run` prints them)"
            )
        if len(set(self.data.families)) < len(self.data.families) or self.run.steps < len(self.data.families):
            raise ValueError("data.families names each task once, and run.steps must have a step for each of them")
        if self.data.source == "minicode" and self.data.problem_split != "marked":
            raise ValueError("minicode says itself which problems are held out; set data.problem_split=marked")
        if (
            self.distillation is not None
            and self.rollout.responses == 1
            and (self.context.demonstration, self.context.feedback) == ("random", "never")
        ):
            raise ValueError("a single response has no sibling, and context.feedback=never leaves the teacher nothing")
        if self.rollout.colocated and (self.rollout.engines, self.rollout.tensor_parallel_size) != (
            self.learner.ranks,
            1,
        ):
            raise ValueError(
                "rollout.colocated puts one engine on the GPU of each learner rank: set "
                f"rollout.engines={self.learner.ranks} and rollout.tensor_parallel_size=1"
            )
        if self.rollout.staleness and self.rollout.colocated:
            raise ValueError("rollout.staleness needs the engines while the learner works; rollout.colocated=false")
        for name in ("policy_gradient", "distillation"):
            stream = getattr(self, name)
            if self.rollout.staleness and stream is not None and stream.sampler_threshold is None:
                raise ValueError(
                    f"rollout.staleness={self.rollout.staleness} samples with older weights; {name}.sampler_threshold "
                    "corrects for that (2 is usual)"
                )
        distillation = self.distillation
        if distillation is not None and distillation.level != "logit" and distillation.alpha != 1.0:
            raise ValueError(
                f"distillation.level={distillation.level} is defined for the reverse KL only; set distillation.alpha=1"
            )
        if distillation is not None and distillation.advantage_clip is not None:
            if distillation.alpha != 1.0:
                raise ValueError("distillation.advantage_clip is a form of the reverse KL; set distillation.alpha=1")
            if distillation.entry_clip is not None:
                raise ValueError("distillation.advantage_clip and distillation.entry_clip exclude each other; set one")
        if distillation is not None and self.context.demonstration == "none" and self.context.feedback == "never":
            raise ValueError(
                "the teacher needs a context: context.demonstration=none and context.feedback=never leave none"
            )
        if self.context.demonstration == "column" and self.context.column is None:
            raise ValueError("context.demonstration=column needs the column's name: set context.column")
        return self

    def _check_source(self) -> None:
        """Responses of the dataset have no sampler and no siblings."""
        source = self.rollout.source
        if (self.algorithm.name == "sft") != (source != "policy"):
            raise ValueError("rollout.source=solution or column and algorithm.name=sft belong together; set both")
        if source == "policy":
            return
        if source == "column" and self.context.column is None:
            raise ValueError("rollout.source=column needs the column's name: set context.column")
        if self.rollout.responses != 1:
            raise ValueError(f"a problem has one demonstration: with rollout.source={source} set rollout.responses=1")
        if self.policy_gradient.variant != "reinforce" or self.policy_gradient.sampler_threshold is not None:
            raise ValueError(
                f"responses of rollout.source={source} were not sampled, so there is no ratio: set "
                "policy_gradient.variant=reinforce and policy_gradient.sampler_threshold=null"
            )

    @property
    def evaluation_samples(self) -> int:
        return 1 if self.evaluation.temperature == 0 else self.evaluation.samples

    @property
    def max_model_len(self) -> int:
        """Tokens that an engine must hold: the longest student prompt and the longest response."""
        return self.context.max_prompt_tokens + self.rollout.max_response_tokens

    @property
    def samples_per_step(self) -> int:
        return self.run.questions * self.rollout.responses


def _streams(algorithm: dict[str, Any], unknown: tuple[str, ...]) -> tuple[str, ...]:
    streams = ALGORITHM_STREAMS.get(algorithm.get("name", "sdpo"), unknown)
    return (*streams, "policy_gradient") if algorithm.get("mix") is not None else streams


def _explicitly_set(recipe: Recipe, path: str) -> bool:
    """Whether the option was given and is not switched off (null, or false where false is the default)."""
    node: Any = recipe
    *parents, leaf = path.split(".")
    for part in parents:
        node = getattr(node, part)
        if node is None:
            return False
    value, default = getattr(node, leaf), type(node).model_fields[leaf].default
    switched_off = value is None or (value is False and default is False)
    return leaf in node.model_fields_set and not switched_off


def _one_update(recipe: Recipe) -> bool:
    return recipe.learner.updates_per_batch == 1


def _without_ratio(recipe: Recipe) -> bool:
    return recipe.policy_gradient.variant == "reinforce"


def _noisy(recipe: Recipe) -> bool:
    return recipe.context.feedback_noise > 0


_ONE_UPDATE = "with learner.updates_per_batch=1 (the policy ratio is always 1)"

# (option, when it does nothing, how that is said)
INERT: tuple[tuple[str, Callable[[Recipe], bool], str], ...] = (
    ("algorithm.entropy_beta", lambda r: r.algorithm.name != "srpo", "with an algorithm other than srpo"),
    ("algorithm.mix", lambda r: r.algorithm.name != "sdpo", "with an algorithm other than sdpo"),
    ("distillation.tail", lambda r: r.distillation.top_k is None, "on the full vocabulary (distillation.top_k null)"),
    ("distillation.top_k", lambda r: r.distillation.level != "logit", "unless distillation.level=logit"),
    ("teacher.clock", lambda r: r.teacher.clock == "update" and _one_update(r), "with learner.updates_per_batch=1"),
    ("distillation.tail", lambda r: r.distillation.level != "logit", "unless distillation.level=logit"),
    ("distillation.advantage_clip", lambda r: r.distillation.level != "logit", "unless distillation.level=logit"),
    ("distillation.entry_clip", lambda r: r.distillation.level != "logit", "unless distillation.level=logit"),
    (
        "distillation.support",
        lambda r: r.distillation.top_k is None,
        "on the full vocabulary (distillation.top_k null)",
    ),
    ("distillation.support", lambda r: r.distillation.level != "logit", "unless distillation.level=logit"),
    ("distillation.is_clip", _one_update, _ONE_UPDATE),
    ("policy_gradient.clip_low", _one_update, _ONE_UPDATE),
    ("policy_gradient.clip_high", _one_update, _ONE_UPDATE),
    ("policy_gradient.dual_clip", _one_update, _ONE_UPDATE),
    ("policy_gradient.dual_clip", lambda r: r.policy_gradient.variant == "cispo", "with policy_gradient.variant=cispo"),
    ("policy_gradient.clip_low", _without_ratio, "with policy_gradient.variant=reinforce"),
    ("policy_gradient.clip_high", _without_ratio, "with policy_gradient.variant=reinforce"),
    ("policy_gradient.dual_clip", _without_ratio, "with policy_gradient.variant=reinforce"),
    (
        "policy_gradient.variant",
        lambda r: r.policy_gradient.variant not in ("grpo", "reinforce") and _one_update(r),
        _ONE_UPDATE,
    ),
    ("data.path", lambda r: r.data.source == "minicode", "with data.source=minicode (its problems are generated)"),
    ("data.release", lambda r: r.data.source == "minicode", "with data.source=minicode"),
    ("data.release", lambda r: str(r.data.path).endswith(".jsonl"), "when data.path is a single file"),
    ("data.window", lambda r: r.data.source == "minicode", "with data.source=minicode"),
    ("data.exclude_ungradable", lambda r: r.data.source == "minicode", "with data.source=minicode"),
    ("data.families", lambda r: r.data.source != "minicode", "unless data.source=minicode"),
    ("data.world_seed", lambda r: r.data.source != "minicode", "unless data.source=minicode"),
    ("data.held_out_fraction", lambda r: r.data.problem_split != "hash", "unless data.problem_split=hash"),
    ("evaluation.samples", lambda r: r.evaluation.temperature == 0, "with greedy decoding (evaluation.temperature=0)"),
    ("evaluation.top_p", lambda r: r.evaluation.temperature == 0, "with greedy decoding (evaluation.temperature=0)"),
    (
        "context.demonstration",
        lambda r: r.distillation is None and r.context.demonstration != "none",
        "without a teacher",
    ),
    (
        "context.column",
        lambda r: (r.distillation is None or r.context.demonstration != "column") and r.rollout.source != "column",
        "unless a teacher has context.demonstration=column",
    ),
    ("context.teacher_thinking", lambda r: r.distillation is None, "without a teacher"),
    ("context.feedback", lambda r: r.distillation is None and r.context.feedback != "never", "without a teacher"),
    ("context.feedback_noise", lambda r: _noisy(r) and r.distillation is None, "without a teacher"),
    ("context.feedback_noise", lambda r: _noisy(r) and r.context.feedback == "never", "with context.feedback=never"),
    ("context.max_reprompt_tokens", lambda r: r.distillation is None, "without a teacher"),
    ("context.remove_thinking", lambda r: r.distillation is None, "without a teacher"),
    ("context.remove_thinking", lambda r: r.context.demonstration == "none", "without demonstrations"),
    ("evaluation.training_problems", lambda r: r.data.problem_split == "none", "unless problems are held out"),
    ("data.max_bad_rows", lambda r: r.data.source == "minicode", "with data.source=minicode"),
    ("rollout.colocated", lambda r: r.profile == "cpu", "with profile=cpu (they share the cores anyway)"),
    ("rollout.gpu_memory_utilization", lambda r: r.profile == "cpu", "with profile=cpu"),
    ("rollout.cpu_threads", lambda r: r.profile != "cpu", "unless profile=cpu"),
    ("learner.triton", lambda r: r.profile == "cpu", "with profile=cpu (kernels need a GPU)"),
    ("learner.cpu_threads", lambda r: r.profile != "cpu", "unless profile=cpu"),
)
