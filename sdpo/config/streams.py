"""The sections of a recipe that make the loss: the teacher, and the streams into which tokens are routed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sdpo.config.checks import REMOVE
from sdpo.config.sections import Settings


class TeacherSettings(Settings):
    kind: Literal["ema", "trust_region", "frozen", "live"] = Field(
        "ema",
        description="whose weights it has: ema: a moving average of the policy's; trust_region: logits of the initial "
        "and the present policy, mixed; frozen: the initial policy's; live: the present policy's",
    )
    rate: float | None = Field(
        None, gt=0, le=1, description="EMA: τ of θ' ← (1−τ)θ' + τθ; trust region: mixing τ; null: 0.01 for these two"
    )
    clock: Literal["batch", "update"] | None = Field(
        None, description="EMA: move once per generation batch (as released) or per optimiser step; null: batch"
    )
    refresh: Literal["reward", "probe"] | None = Field(
        None,
        description="when a frozen teacher becomes the present policy: reward: the pass rate has risen and lengths are "
        "sane (CGTR, arXiv 2606.03532); probe: told its hints, the policy solves no less (ours); null: never",
    )
    placement: Literal["learner", "own"] = Field(
        "learner",
        description="who computes it: learner: the learner's ranks; own: ranks of its own, which score responses while "
        "others are still sampled",
    )
    ranks: int = Field(1, ge=1, description="processes of teacher.placement=own, one GPU each")
    model: str | None = Field(
        None,
        description="another model with the policy's tokenizer, folder or hub name, as a frozen teacher of its own; "
        "null: the policy's",
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
        if self.kind != "frozen" and self.refresh is not None:
            raise ValueError(f"teacher.refresh has no effect with teacher.kind={self.kind}; {REMOVE}")
        if self.placement == "own":
            self._can_be_elsewhere()
        if self.model is not None and (self.placement, self.kind, self.refresh) != ("own", "frozen", None):
            raise ValueError(
                "teacher.model is a frozen teacher of its own, which is never replaced: set teacher.placement=own and "
                "teacher.kind=frozen, and neither teacher.rate, teacher.clock nor teacher.refresh"
            )
        return self

    def _can_be_elsewhere(self) -> None:
        if self.kind == "live":
            raise ValueError(
                "teacher.kind=live has the weights that the learner computes with, so that nobody else can be ahead of "
                "it; set teacher.placement=learner"
            )
        if self.clock == "update":
            raise ValueError(
                "teacher.placement=own scores a batch before its first update, and teacher.clock=update moves the "
                "teacher between them; set teacher.clock=batch, or teacher.placement=learner"
            )

    @property
    def moves(self) -> bool:
        """Whether it has other weights in every generation batch."""
        return self.kind == "ema"


Aggregation = Annotated[
    Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "fixed-length"],
    Field(
        description="what a token weighs: token-mean: 1/tokens of the batch; seq-mean-token-mean: 1/(tokens of its "
        "response · responses); seq-mean-token-sum: 1/responses; fixed-length: 1/(response limit · responses)"
    ),
]


class Ramp(Settings):
    """A factor that goes from `start` to `end` in equal steps over `steps` generation batches, and stays there."""

    start: float = Field(1.0, ge=0, description="factor of the coefficient at step 1")
    end: float = Field(1.0, ge=0, description="factor from step after + steps + 1 on")
    steps: int = Field(ge=1, description="generation batches from start to end, in equal parts")
    after: int = Field(0, ge=0, description="generation batches before it leaves start")

    @model_validator(mode="after")
    def _moves(self) -> Ramp:
        if self.start == self.end:
            raise ValueError(f"a ramp from {self.start:g} to {self.end:g} has no effect; set start or end")
        return self

    def at(self, step: int) -> float:
        """The factor of the generation batch `step`, counted from 1."""
        return self.start + (self.end - self.start) * min(1.0, max(0, step - 1 - self.after) / self.steps)


class StreamSettings(Settings):
    """What every loss stream has."""

    coefficient: float = Field(1.0, gt=0, description="weight in the sum of the losses")
    ramp: Ramp | None = Field(None, description="the coefficient's factor over the run; null: 1")
    second_ramp: Ramp | None = Field(None, description="another factor: the fall after a rise, say; null: 1")

    @model_validator(mode="after")
    def _first_comes_first(self) -> StreamSettings:
        if self.second_ramp is not None and self.ramp is None:
            raise ValueError("second_ramp is a factor beside that of ramp; a single one is called ramp")
        return self

    def at(self, step: int) -> StreamSettings:
        """These settings with the coefficient of one generation batch."""
        if self.ramp is None:
            return self
        factor = self.ramp.at(step) * (1.0 if self.second_ramp is None else self.second_ramp.at(step))
        return self.model_copy(update={"coefficient": self.coefficient * factor})


class Blend(Settings):
    """A target between the teacher and the same weights without a hint: q^(1−α)·q̄^α, normalised, with a weight per
    token, α = largest·(2σ(beta·s) − 1), s = JSD_.5(q̄, q) in nats (DemoPSD, arXiv 2607.02502).
    """

    largest: float = Field(0.15, gt=0, le=1, description="α where a hint changes everything")
    beta: float = Field(50.0, gt=0, description="how fast α grows with the divergence that a hint makes")


class LayerSettings(Settings):
    """Hidden states between layers against those of a teacher of its own, through learned projections (FitNets, arXiv
    1412.6550, eq. 3).
    """

    pairs: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], ...] = Field(
        min_length=1, description="[student's layer, teacher's layer], counted from 1"
    )
    coefficient: float = Field(gt=0, description="weight of the squared error beside the divergence")
    projections_lr: float = Field(1e-3, gt=0, description="learning rate of the projections, beside learner.lr")

    @model_validator(mode="after")
    def _once(self) -> LayerSettings:
        if len(set(self.pairs)) < len(self.pairs):
            raise ValueError("pairs names the same two layers twice; name them once")
        return self


class DistillationSettings(StreamSettings):
    """The divergence between student and teacher (arXiv 2601.20802 §2–3); defaults: its LiveCodeBench settings."""

    level: Literal["logit", "token", "sequence"] = Field(
        "logit",
        description="what gets credit: logit: every entry of the vocabulary; token: the sampled one; sequence: the "
        "response, by its mean",
    )
    alpha: float = Field(1.0, ge=0, le=1, description="0 forward KL, 1 reverse KL, between: Jensen-Shannon")
    top_k: int | None = Field(20, ge=1, description="entries of the student's top-K; null: full vocabulary")
    tail: bool = Field(True, description="one bucket for the rest; false renormalises the K entries")
    support: Literal["student", "teacher"] = Field("student", description="whose top-K")
    entry_clip: float | None = Field(None, gt=0, description="cap of every vocabulary entry's contribution")
    teacher_temperature: float = Field(
        1.0, gt=0, description="T of the teacher's softmax(z/T), beside the sampling temperature (arXiv 1503.02531, §2)"
    )
    skip_tokens: int = Field(0, ge=0, description="first tokens of a response that carry no loss")
    prefix_tokens: int | None = Field(None, ge=1, description="only so many first tokens carry loss; null: all")
    blend: Blend | None = Field(
        None, description="draw the target back to the teacher without a hint, where the hint changes much; null: not"
    )
    layers: LayerSettings | None = Field(
        None, description="compare hidden states of layers with a teacher of its own (teacher.placement=own); null: not"
    )
    advantage_clip: float | None = Field(None, gt=0, description="clipped-advantage form: |log q − log π| ≤ c")
    advantage_clip_factor: float | None = Field(
        None, gt=0, description="the same with c = this times the running mean of |log q − log π|"
    )
    is_clip: float | None = Field(2.0, gt=0, description="cap of the policy ratio over several updates per batch")
    sampler_threshold: float | None = Field(2.0, gt=0, description="cap of the trainer/sampler ratio")
    aggregation: Aggregation = "token-mean"

    @model_validator(mode="after")
    def _some_token_counts(self) -> DistillationSettings:
        if self.prefix_tokens is not None and self.prefix_tokens <= self.skip_tokens:
            raise ValueError(
                f"prefix_tokens={self.prefix_tokens} leaves no token beside skip_tokens={self.skip_tokens}; raise it"
            )
        return self


class PolicyGradientSettings(StreamSettings):
    """The clipped surrogate; defaults: GRPO as arXiv 2601.20802 runs it."""

    variant: Literal["ppo", "gspo", "cispo", "reinforce"] = Field(
        "ppo",
        description="the surrogate: ppo: clipped ratio of a token; gspo: of a response; cispo: clipped ratio as a "
        "weight; reinforce: no ratio",
    )
    normalize_by_std: bool = Field(False, description="divide advantages by the standard deviation of the group")
    returns: Literal["rollout", "turn"] = Field(
        "rollout",
        description="what a turn is credited with: the last turn's reward, or its own and the discounted ones after it",
    )
    discount: float = Field(
        0.4, ge=0, le=1, description="returns=turn: factor of the next turn's return (arXiv 2507.11948)"
    )
    clip_low: float = Field(0.2, gt=0, description="the ratio is clipped below 1 − this")
    clip_high: float = Field(0.28, gt=0, description="and above 1 + this (clip-higher: more than clip_low)")
    dual_clip: float | None = Field(
        3.0, gt=1, description="cap of a loss with a negative advantage A, in −A; null: none"
    )
    sampler_threshold: float | None = Field(2.0, gt=0, description="cap of the trainer/sampler ratio; null: no ratio")
    aggregation: Aggregation = "token-mean"
    entropy_bonus: float = Field(0.0, ge=0, description="weight of the policy's entropy, per token in nats")
    drop_uniform_groups: bool = Field(False, description="DAPO: groups without spread do not count in the normaliser")


class ReferenceSettings(StreamSettings):
    coefficient: float = Field(gt=0, description="weight in the sum of the losses")
    kind: Literal["k1", "k2", "k3"] = Field(
        "k3",
        description="estimator of KL(π‖π_ref), π_ref the initial policy; with d = log π_ref − log π: k1: −d; "
        "k2: d²/2; k3: exp(d) − 1 − d",
    )
    aggregation: Aggregation = "token-mean"
