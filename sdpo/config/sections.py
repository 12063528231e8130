"""The sections of a recipe: every option of a run, with its one default.

Unknown keys are errors.  So are options that would have no effect (`sdpo.config.checks`).
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sdpo.config import registry


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AdapterSettings(Settings):
    """LoRA (arXiv 2106.09685): the base is frozen; (alpha / rank) · B·A is added to the weights of linear layers."""

    kind: Literal["lora"] = Field("lora", description="of adapter")
    rank: int = Field(16, ge=1, description="columns of B and rows of A")
    alpha: float = Field(32.0, gt=0, description="the product of B and A counts alpha / rank times")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="names of linear layers (q_proj, …); all-linear: all but the output projection"
    )


class ModelSettings(Settings):
    path: str = Field(description="a Hugging Face model folder, or a hub name")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of weights and activations; beside bfloat16 the optimiser keeps float32 weights"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = Field(
        "sdpa",
        description="the learner's; flash_attention_2 needs profile gpu and bfloat16, flex_attention profile gpu; "
        "eager makes all scores of a pass at once",
    )
    thinking: bool | None = Field(None, description="enable_thinking of the chat template; null leaves its default")
    adapter: AdapterSettings | None = Field(None, description="train an adapter instead of the whole model")


class ColumnSettings(Settings):
    """What each column of a row is.  A dot reaches into an object: reward_model.ground_truth."""

    prompt: str | None = Field(
        None, description="a text, or a list of messages; null: prompt, messages or question, the first that is there"
    )
    answer: str | None = Field(None, description="what is right; null: answer, where there is one")
    solution: str | None = Field(
        None, description="a reference solution as a response gives it; null: solution, else the answer"
    )
    id: str | None = Field(None, description="null: id, where there is one, else the row's file and number")
    difficulty: str | None = Field(None, description="results are reported by it, too; null: difficulty")
    split: str | None = Field(None, description="for data.problem_split=marked; null: split")


class DataSettings(Settings):
    source: str | None = Field(
        None,
        description=f"where rows come from: {', '.join(registry.SOURCES)}, or "
        "module:function or path.py:function that gives them; null: data.path, or the environment's own",
    )
    path: str | None = Field(
        None,
        description="file of rows (JSON Lines, a JSON list or Parquet), a folder of them, a Hugging Face data set's "
        "folder or its hub name; null: the environment's own",
    )
    subset: str | None = Field(
        None, description="configuration of a Hugging Face data set; minicode: hard, for problems of two unknown words"
    )
    split: str | None = Field(None, description="split of a Hugging Face data set to train on; null: train")
    revision: str | None = Field(None, description="commit or tag of a hub data set; null: its newest")
    evaluation_path: str | None = Field(
        None, description="as path, to evaluate on; null: held out of path (evaluation_split or problem_split)"
    )
    evaluation_split: str | None = Field(None, description="split of a Hugging Face data set to evaluate on")
    columns: ColumnSettings = Field(
        ColumnSettings(), description="which column of a row is what; a dot reaches into an object: extra.answer"
    )
    release: str | None = Field(
        None,
        description="release_v1 … release_v6: the first N official files; v6: that file; null: all files of data.path, "
        "or the newest release of the hub",
    )
    window: tuple[date, date] | None = Field(None, description="contest dates [from, to); null keeps all")
    exclude_ungradable: bool = Field(False, description="leave out problems that no comparison can grade")
    test_split: Literal["published", "official", "disjoint", "public-private"] = Field(
        "published",
        description="which tests give reward and feedback, and which measure: published: half of the private ones, all "
        "private ones; official: the same half, public and private ones; disjoint: the same half, the other half; "
        "public-private: the public ones, the private ones",
    )
    problem_split: Literal["none", "hash", "marked"] = Field(
        "none", description="none: evaluate on the training problems; hash: hold problems out; marked: as rows say"
    )
    held_out_fraction: float = Field(0.25, gt=0, lt=1, description="of the problems, with problem_split=hash")
    world_seed: int = Field(0, ge=0, description="minicode, minitools: gives the words their secret meanings")
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="fraction of unreadable rows that stops the run")

    @field_validator("source")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None or value in registry.SOURCES or registry.is_reference(value):
            return value
        raise ValueError(
            f"{value!r} is unknown. Known: {', '.join(registry.SOURCES)}; a function of your own is given as "
            "module:function or path.py:function"
        )


class ContextSettings(Settings):
    template: Literal["published", "compact", "demonstration", "reference"] = Field(
        "published",
        description="how the teacher is told: published (SDPO, arXiv 2601.20802), demonstration (SDFT, arXiv "
        "2601.19897), reference (after OPSD, arXiv 2601.18734), or compact, a short form for the bundled policies",
    )
    max_prompt_tokens: int = Field(
        2048, ge=8, description="of the student's prompt, chat template included; a longer one is an error"
    )
    max_reprompt_tokens: int = Field(10240, ge=8, description="the teacher's whole prompt, header included")
    demonstration: Literal["random", "solution", "column", "none"] = Field(
        "random",
        description="random: another success of the group; solution: the problem's reference program; column: a column "
        "of the dataset",
    )
    demonstration_of: Literal["same", "other"] = Field(
        "same",
        description="same: of the task itself; other: as a control (arXiv 2608.09228), of another task of the batch, "
        "behind that task's question",
    )
    column: str | None = Field(None, description="the dataset's column that holds demonstrations")
    teacher_thinking: bool | None = Field(
        None, description="enable_thinking of the teacher's prompt; null: as model.thinking"
    )
    feedback: Literal["fallback", "always", "never"] = Field(
        "fallback", description="show environment feedback: only without a demonstration, always, or never"
    )
    remove_thinking: bool = Field(
        True, description="strip thoughts (<think>…</think>, finished or not) from demonstrations"
    )
    trust_statements: bool = Field(
        False, description="true: special tokens in statements keep their meaning; false: they are broken up"
    )
    hint_at: Literal["turn", "first_message"] = Field(
        "turn", description="where the teacher of a later turn is told: in the message before it, or in the first one"
    )
    history: Literal["template", "sampled"] = Field(
        "template",
        description="how a later turn sees earlier ones: as the chat template renders them (it may drop thoughts), or "
        "token by token as they were sampled",
    )
    max_reply_tokens: int = Field(
        512, ge=8, description="between two turns: the reply, the end of the one turn, the next header"
    )

    @property
    def reads_outcomes(self) -> bool:
        """Whether anything that a teacher is told depends on what responses were worth."""
        return self.demonstration == "random" or self.feedback != "never"


class RolloutSettings(Settings):
    responses: int = Field(8, ge=1, description="responses per question (the group size n)")
    source: Literal["policy", "solution", "column"] = Field(
        "policy", description="policy: sampled; solution, column: the dataset's demonstration is the response"
    )
    temperature: float = Field(1.0, gt=0, description="of training responses; the loss divides logits by it, too")
    top_p: float = Field(1.0, gt=0, le=1, description="probability mass that is sampled from; 1: all")
    top_k: int = Field(0, ge=0, description="tokens that are sampled from, the likeliest ones; 0: all")
    max_response_tokens: int = Field(8192, ge=1, description="of one turn")
    first_response_tokens: int | None = Field(
        None, ge=1, description="the same at step 1, from where it grows in equal steps; null: it does not"
    )
    growth_steps: int | None = Field(None, ge=1, description="generation batches until max_response_tokens is reached")
    max_model_len: int | None = Field(
        None,
        ge=1,
        description="tokens of a whole rollout, which ends where the next turn does not fit; null: what prompt, turns "
        "and replies may take",
    )
    engines: int = Field(1, ge=1, description="vLLM engines, which share the questions of a batch")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs of one engine, among which it splits the model")
    max_num_seqs: int = Field(256, ge=1, description="sequences that one engine decodes at once")
    gpu_memory_utilization: float = Field(0.85, gt=0, lt=1, description="share of a GPU's memory for its engine")
    enforce_eager: bool = Field(False, description="vLLM compiles nothing: a faster start, slower sampling")
    colocated: bool = Field(False, description="engine i shares GPU i with learner rank i, and sleeps while it learns")
    mode: Literal["synchronous", "continuous"] = Field(
        "synchronous",
        description="synchronous: a step waits for its batch; continuous: it learns from what is ready",
    )
    staleness: int = Field(
        0, ge=0, description="versions by which a token may lag behind the weights that learn from it; 0: on-policy"
    )
    cpu_threads: int = Field(1, ge=1, description="threads of a CPU engine")
    weight_bucket_mb: int = Field(256, ge=1, description="size of one bucket of a weight update")
    adapter: Literal["merged", "loaded"] = Field(
        "merged",
        description="what engines get of model.adapter: merged: whole weights with the adapter in them; loaded: the "
        "adapter alone, which vLLM keeps beside the base model",
    )
    engine_args: dict[str, Any] = Field({}, description="more arguments of vLLM's engines, handed on as they are")

    @model_validator(mode="after")
    def _grows(self) -> RolloutSettings:
        first, most = self.first_response_tokens, self.max_response_tokens
        if (first is None) != (self.growth_steps is None):
            raise ValueError("rollout.first_response_tokens and rollout.growth_steps belong together; set both or none")
        if first is not None and first >= most:
            raise ValueError(
                f"rollout.first_response_tokens={first} leaves nothing to grow to below "
                f"rollout.max_response_tokens={most}; lower it"
            )
        return self

    def response_tokens(self, step: int) -> int:
        """The limit of a turn in generation batch `step`, counted from 1."""
        first, most = self.first_response_tokens, self.max_response_tokens
        if first is None or self.growth_steps is None:
            return most
        return min(most, first + (most - first) * (step - 1) // self.growth_steps)


class SandboxSettings(Settings):
    workers: int | None = Field(None, ge=1, description="null: one per core")
    isolation: Literal["auto", "namespaces", "landlock", "seccomp", "none"] = Field(
        "auto", description="auto: namespaces, else landlock, else the run is refused; see docs/sandbox.md"
    )
    outer: tuple[str, ...] = Field(
        (), description="a command before the fork server, as one more wall: [bwrap, …]; see docs/sandbox.md"
    )
    cpu_time_s: float = Field(6.0, gt=0, description="processor seconds of a program, for each test")
    memory_mb: int = Field(1024, ge=16, description="MiB of a program, for each test")
    feedback_from: Literal["first_failure", "all"] = Field(
        "first_failure", description="stop at the first failing test, or run them all for the feedback"
    )


class AlgorithmSettings(Settings):
    """What every algorithm has; its class adds options of its own (`Algorithm.Settings`)."""

    name: str = Field(
        registry.DEFAULT_ALGORITHM, description=f"{', '.join(registry.ALGORITHMS)}, or module:Class of one of your own"
    )

    @property
    def label(self) -> str:
        """What the algorithm is called in names of runs and in reports."""
        return registry.label(self.name)


class EnvironmentSettings(Settings):
    """What every environment has; its class adds options of its own (`Environment.Settings`)."""

    kind: str = Field("code", description=f"{', '.join(registry.ENVIRONMENTS)}, or module:Class of one of your own")
    turns: int = Field(
        1, ge=1, description="most turns of a rollout, which ends earlier when solved or without a reply"
    )


class UnknownAlgorithm(AlgorithmSettings):
    """That of a resolved recipe whose class is not there: the recipe can still be read."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class UnknownEnvironment(EnvironmentSettings):
    """The same for an environment."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class LearnerSettings(Settings):
    ranks: int = Field(1, ge=1, description="processes that train, one GPU each")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="of DeepSpeed: what ranks share out: 0 nothing, 1 optimiser, 2 and gradients, 3 and weights"
    )
    lr: float = Field(1e-6, gt=0, description="learning rate of AdamW")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="decay of AdamW's two moments"
    )
    weight_decay: float = Field(0.01, ge=0, description="of AdamW, decoupled")
    clip_grad_norm: float = Field(1.0, gt=0, description="largest norm of all gradients together")
    warmup_steps: int = Field(0, ge=0, description="optimiser steps over which the learning rate rises to lr")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate after that; linear and cosine reach 0 at the run's end"
    )
    updates_per_batch: int = Field(1, ge=1, description="optimiser steps per generation batch (mini-batches)")
    micro_batch_tokens: int = Field(
        16384, ge=1, description="tokens packed into one pass on one rank; a shared prompt counts once"
    )
    packing: Literal["auto", "off"] = Field(
        "auto",
        description="auto: pack where the model allows it, which is measured; off: each sequence in a pass of its own, "
        "with transformers' own attention",
    )
    max_skipped: int = Field(
        3, ge=1, description="updates in a row with a number that is not finite, all skipped, that stop the run"
    )
    chunk_tokens: int = Field(1024, ge=1, description="response tokens whose logits exist at the same time")
    triton: bool = Field(True, description="loss kernels in Triton; false: plain PyTorch")
    gradient_checkpointing: bool = Field(False, description="recompute activations instead of keeping them")
    offload_states: bool = Field(
        False,
        description="keep optimiser, teacher and reference policy in pinned host memory while engines use the GPUs "
        "(rollout.colocated)",
    )
    cpu_threads: int = Field(1, ge=1, description="threads of a CPU rank")
    deepspeed: dict[str, Any] = Field({}, description="more of DeepSpeed's configuration, handed on as it is")

    @property
    def pass_tokens(self) -> int:
        """Tokens that fill a pass; one sequence always fits."""
        return self.micro_batch_tokens if self.packing == "auto" else 1


class EvaluationSettings(Settings):
    every: int = Field(10, ge=0, description="steps between evaluations; 0: only at the end")
    samples: int = Field(4, ge=1, description="responses per problem")
    max_response_tokens: int | None = Field(None, ge=1, description="null: rollout.max_response_tokens")
    temperature: float = Field(0.6, ge=0, description="0: greedy, one response per problem")
    top_p: float = Field(0.95, gt=0, le=1, description="probability mass that is sampled from; 1: all")
    ks: tuple[int, ...] = Field((1, 4), description="the k of pass@k; 1 must be there")
    turns: int | None = Field(None, ge=1, description="most turns of a rollout; null: environment.turns")
    at_start: bool = Field(True, description="measure the policy before training, too")
    thinking: Literal["official", "ignored"] = Field(
        "official",
        description="official: LiveCodeBench's own rule, by which a program may stand in a thought; ignored: what was "
        "thought is no answer, as in training",
    )
    training_problems: bool = Field(False, description="measure the training problems too, on their evaluation tests")


class RunSettings(Settings):
    steps: int = Field(80, ge=1, description="generation batches")
    questions: int = Field(32, ge=1, description="questions per generation batch")
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints")
    asynchronous_checkpoints: bool = Field(
        False, description="copy the state to memory and write it while training goes on"
    )
    keep_checkpoints: int = Field(1, ge=0, description="older checkpoints kept beside last and best")
    max_restarts: int = Field(100, ge=0, description="restarts of engines and learner, all in all, that end the run")
    directory: str = Field("runs", description="folder of run folders")
    mirror: str | None = Field(
        None,
        min_length=1,
        description="fsspec address (s3://bucket/runs, a folder) that checkpoints and records are copied to behind the "
        "run; the same command elsewhere goes on from there",
    )
    stop_limit_s: float = Field(
        30.0, gt=0, description="that a stop (Ctrl-C, SIGTERM) waits for the step under way before it ends without it"
    )


class SupervisionSettings(Settings):
    """How it is noticed that a part of a run is dead, stopped or hangs, and how often it is started again."""

    heartbeat_s: float = Field(1.0, gt=0, description="seconds between two looks at the processes of all parts")
    floor_s: float = Field(25.0, gt=0, description="no call to a part is given up in fewer seconds than these")
    factor: float = Field(
        10.0, ge=1, description="a call is given up after so many times what the longest of its kind took so far"
    )
    first_s: float = Field(1800.0, gt=0, description="the same for the first call of a kind, engine starts included")
    same_step: int = Field(10, ge=0, description="restarts without another step complete that end the run")

    @model_validator(mode="after")
    def _first_counts(self) -> SupervisionSettings:
        if self.first_s < self.floor_s:
            raise ValueError(
                f"supervision.first_s={self.first_s:g} has no effect below supervision.floor_s={self.floor_s:g}; "
                "raise it, or lower supervision.floor_s"
            )
        return self


class TrackingSettings(Settings):
    sinks: tuple[Literal["wandb", "tensorboard", "csv"], ...] = Field(("wandb",), description="metrics also go there")
    wandb: Literal["auto", "online", "offline", "disabled"] = Field("auto", description="auto: online with an account")
    project: str = Field(
        "sdpo", min_length=1, max_length=128, pattern=r"^[^/\\#?%:\x00-\x1f\x7f]+$", description="of W&B, by its name"
    )
    rollouts_mb: float = Field(
        4096, gt=0, description="MB (10⁶ bytes) of rollout tables that a run keeps; older steps are thinned out"
    )
    tokens_mb: float = Field(
        1, ge=0, description="MB of a step's table for numbers of single tokens, which `sdpo inspect` shows; 0: none"
    )
    shown_rollouts: int = Field(0, ge=0, description="responses of every step that W&B and TensorBoard show as text")

    @model_validator(mode="after")
    def _sinks_are_used(self) -> TrackingSettings:
        if len(set(self.sinks)) < len(self.sinks):
            raise ValueError(f"tracking.sinks names one twice: {', '.join(self.sinks)}")
        if self.wandb in ("online", "offline") and "wandb" not in self.sinks:
            raise ValueError(f"tracking.wandb={self.wandb} has no effect: tracking.sinks does not name wandb; add it")
        if self.shown_rollouts and not {"wandb", "tensorboard"} & set(self.sinks):
            raise ValueError("tracking.shown_rollouts has no effect without wandb or tensorboard in tracking.sinks")
        return self
