"""What a run may go on with in another way than it was begun, and what would make it another run.

An option that is named here decides where and how fast a run computes, how often it saves and what it shows, but no
number beyond rounding.  Every other option is fixed, new ones of later versions and of one's own classes included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdpo.config.schema import Recipe

FREE = frozenset({
    # how the learner is cut up and computes
    "learner.ranks", "learner.zero_stage", "learner.micro_batch_tokens", "learner.packing", "learner.chunk_tokens",
    "learner.triton", "learner.gradient_checkpointing", "learner.offload_states", "learner.cpu_threads",
    "learner.max_skipped", "model.attention",
    # who computes the teacher
    "teacher.placement", "teacher.ranks",
    # how the engines are
    "rollout.engines", "rollout.tensor_parallel_size", "rollout.max_num_seqs", "rollout.gpu_memory_utilization",
    "rollout.enforce_eager", "rollout.colocated", "rollout.cpu_threads", "rollout.weight_bucket_mb",
    "rollout.adapter",
    # how programs are kept apart
    "sandbox.workers", "sandbox.isolation", "sandbox.outer",
    # when it is saved, where it lies, who is told
    "run.checkpoint_every", "run.asynchronous_checkpoints", "run.keep_checkpoints", "run.directory",
    "run.mirror",
    "tracking.sinks", "tracking.wandb", "tracking.project", "tracking.rollouts_mb", "tracking.tokens_mb",
    "tracking.shown_rollouts",
    # what is waited for, and how often
    "run.stop_limit_s", "run.max_restarts", "supervision.heartbeat_s", "supervision.floor_s", "supervision.factor",
    "supervision.first_s", "supervision.same_step",
    # what an alarm leads to, short of a rollback
    "guard.action",
})  # fmt: skip
STEPS = "run.steps"


def is_free(option: str, *values: Any) -> bool:
    """Whether an option with these values, one after the other or by itself, decides about no number."""
    return option in FREE and not (option == "guard.action" and "rollback" in values)


@dataclass(frozen=True)
class Change:
    """An option with another value than before."""

    option: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.option}: {self.old} → {self.new}"


def changes(old: Recipe, new: Recipe) -> list[Change]:
    return list(_differences(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def refused(old: Recipe, new: Recipe) -> list[str]:
    """The changes that would make another run, each with the reason where it is not plain."""
    said = []
    for change in changes(old, new):
        if change.option == STEPS and (reason := _steps_matter(old, new)):
            said.append(f"{change}, on which {reason} depends")
        elif change.option != STEPS and not is_free(change.option, change.old, change.new):
            said.append(str(change))
    return said


def _steps_matter(old: Recipe, new: Recipe) -> str:
    """What depends on the number of steps: a schedule to the run's end, or a ramp that was to end with it."""
    if new.learner.schedule != "constant":
        return f"learner.schedule={new.learner.schedule}"
    for name in Recipe.model_fields:
        ramp = getattr(getattr(new, name), "ramp", None)
        if ramp is not None and ramp.steps >= min(old.run.steps, new.run.steps):
            return f"{name}.ramp"
    return ""


def _differences(old: Any, new: Any, prefix: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield Change(prefix[:-1], old, new)
