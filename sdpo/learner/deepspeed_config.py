"""DeepSpeed's configuration from a recipe, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sdpo.config.files import nearest
from sdpo.config.handed_on import handed_on
from sdpo.config.schema import Recipe
from sdpo.errors import UserError

BUCKET_ELEMENTS = 200_000_000  # .8 GB of fp32 gradients; DeepSpeed's default takes 2 GB where memory peaks
OWNERS = {  # keys of DeepSpeed that the recipe has names of its own for
    "train_batch_size": "run.questions and rollout.responses",
    "train_micro_batch_size_per_gpu": "learner.micro_batch_tokens",
    "gradient_accumulation_steps": "learner.updates_per_batch",
    "gradient_clipping": "learner.clip_grad_norm",
    "optimizer": "learner.lr, learner.betas and learner.weight_decay",
    "scheduler": "learner.schedule and learner.warmup_steps",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "zero_optimization.stage": "learner.zero_stage",
}


def training_config(recipe: Recipe) -> dict[str, Any]:
    """The student's engine.  `step()` is the only accumulation boundary; any number of micro-batches may precede it."""
    settings = recipe.learner
    clip = 0.0 if clips_itself(recipe) else settings.clip_grad_norm
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": clip,
        "bf16": {"enabled": recipe.model.dtype == "bfloat16"},
        "zero_optimization": {"stage": settings.zero_stage, "contiguous_gradients": True},
        "steps_per_print": 2**31 - 1,
    }
    if recipe.model.dtype == "bfloat16":
        # Otherwise sums over micro-batches and ranks round in bf16, and the result depends on how they were cut.
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    if (recipe.model.adapter is not None or recipe.teacher_ranks) and settings.zero_stage == 3:
        # No parameter stays gathered: a teacher's adapter, or its whole weights, take the place of the shards.
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return handed_on(config, settings.deepspeed, "learner.deepspeed", OWNERS)


def check_deepspeed(recipe: Recipe) -> None:
    """Raises UserError for what a recipe hands on and DeepSpeed refuses, or never looks at."""
    if not recipe.learner.deepspeed:
        return
    from deepspeed.runtime.config import DeepSpeedConfig

    config = _Noting(training_config(recipe))
    try:
        DeepSpeedConfig(config)
    except Exception as error:  # noqa: BLE001 — whatever it raises for values that it does not take
        raise UserError(f"DeepSpeed does not take learner.deepspeed ({error}).") from error
    if unknown := sorted(set(config) - config.asked):
        raise UserError(
            f"learner.deepspeed.{unknown[0]} is none of DeepSpeed's options.{nearest(unknown[0], config.asked)}"
        )


class _Noting(dict):
    """Notes the keys that are asked for: DeepSpeed ignores those that it does not know."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def fit_buckets(config: dict[str, Any], model: torch.nn.Module) -> None:
    """DeepSpeed allocates a whole bucket for gradients, however small the model is."""
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
    config["zero_optimization"].setdefault("reduce_bucket_size", min(BUCKET_ELEMENTS, parameters))


def clips_itself(recipe: Recipe) -> bool:
    """Plain fp32 data parallelism is the one mode whose gradient norm DeepSpeed clips but does not tell."""
    return recipe.learner.zero_stage == 0 and recipe.model.dtype == "float32"


def inference_config(recipe: Recipe) -> dict[str, Any]:
    """A ZeRO-3 engine without optimiser.  No parameter stays gathered, since a moving average changes the shards."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": recipe.model.dtype == "bfloat16"},
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "steps_per_print": 2**31 - 1,
    }


def learning_rate_factor(recipe: Recipe) -> Callable[[int], float]:
    """Optimiser steps done so far → factor of the learning rate: warm-up, then constant, linear or cosine to 0."""
    settings = recipe.learner
    total = recipe.run.steps * settings.updates_per_batch

    def factor(done: int) -> float:
        if done < settings.warmup_steps:
            return (done + 1) / (settings.warmup_steps + 1)
        progress = min(1.0, (done - settings.warmup_steps) / max(1, total - settings.warmup_steps))
        if settings.schedule == "linear":
            return 1.0 - progress
        if settings.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0

    return factor
