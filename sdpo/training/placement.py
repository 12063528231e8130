"""Which actor gets which resources, how weights travel between them: a recipe turned into Ray and engine options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.config.sections import AdapterSettings
from sdpo.config.waiting import waiting
from sdpo.errors import UserError
from sdpo.rollout.config import AdapterSlots, EngineConfig


@dataclass(frozen=True)
class Placement:
    """Resources of one learner rank (Ray options), of one engine and of one rank of a teacher of its own, and how that
    is said.

    `bundles`: resources of each shared GPU when engine i and learner rank i are placed together, else empty.
    """

    learner: dict[str, Any]
    engine_cpus: float
    engine_gpus: float
    description: str
    bundles: tuple[dict[str, float], ...] = ()
    teacher: dict[str, Any] | None = None


def gpus_needed(recipe: Recipe, learner: bool = True) -> int:
    """GPUs of a run, or of its engines alone; an engine that is colocated takes the one of a rank."""
    engines = recipe.rollout.engines * recipe.rollout.tensor_parallel_size
    if not learner:
        return engines
    return engines + recipe.learner.ranks * (not recipe.rollout.colocated) + recipe.teacher_ranks


def plan_placement(recipe: Recipe, cpus: float, gpus: float, learner: bool = True) -> Placement:
    """Resources on a cluster with so many CPUs and GPUs; without `learner`, for engines alone.

    Raises UserError when the GPUs do not suffice.

    On CPU learner and engines take turns (generation and update alternate), so they share the cores.
    """
    ranks, engines, width = recipe.learner.ranks, recipe.rollout.engines, recipe.rollout.tensor_parallel_size
    teachers = recipe.teacher_ranks * learner
    taught = f", {teachers} rank(s) of a teacher of its own" if teachers else ""
    if recipe.profile == "cpu":
        share = min(1.0, int(100 * cpus / (ranks + engines + teachers)) / 100)
        threads = str(recipe.learner.cpu_threads)
        environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""} | waiting()
        actor = {"num_cpus": share, "runtime_env": {"env_vars": environment}}
        return Placement(
            learner=actor,
            engine_cpus=share,
            engine_gpus=0,
            description=f"{ranks} learner rank(s) and {engines} engine(s) take turns on {cpus:.0f} CPU cores{taught}",
            teacher=actor,
        )
    colocated = recipe.rollout.colocated
    needed = gpus_needed(recipe, learner)
    if needed > gpus:
        inside = ", give the teacher to the learner (teacher.placement=learner)" if teachers else ""
        raise UserError(
            f"This run needs {needed} GPUs ({ranks} learner ranks, {engines} engines × {width}{taught}); {gpus:.0f} "
            "are there. Set learner.ranks, rollout.engines and rollout.tensor_parallel_size to fit, let them share "
            f"GPUs (rollout.colocated=true){inside}, connect to a larger cluster (RAY_ADDRESS), or take PROFILE=cpu."
        )
    alone, own = {"num_cpus": 1, "num_gpus": 1}, f", {teachers} for the teacher" if teachers else ""
    if colocated and learner:
        return Placement(
            learner={"num_cpus": 1, "num_gpus": 0.5},
            engine_cpus=1,
            engine_gpus=0.5,
            description=f"{ranks} GPU(s), each shared by a learner rank and an engine{own}",
            bundles=({"CPU": 2, "GPU": 1},) * ranks,
            teacher=alone,
        )
    return Placement(
        learner=alone,
        engine_cpus=1,
        engine_gpus=width,
        description=f"{ranks} GPU(s) for the learner, {engines} × {width} for the engines{own}",
        teacher=alone,
    )


def engine_options(recipe: Recipe, policies: int = 1) -> EngineConfig:
    """What every engine of a run is started with.  policies: with an adapter each, if adapters are loaded."""
    rollout = recipe.rollout
    return EngineConfig(
        model=locate(recipe.model.path),
        dtype=recipe.model.dtype,
        max_model_len=recipe.max_model_len,
        max_num_seqs=rollout.max_num_seqs,
        seed=recipe.seed,
        device="cpu" if recipe.profile == "cpu" else "cuda",
        tensor_parallel_size=rollout.tensor_parallel_size,
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        enforce_eager=rollout.enforce_eager,
        weight_transfer=recipe.weight_transfer,
        adapters=_slots(recipe, policies) if recipe.loads_adapter else None,
        sleep=recipe.rollout.colocated,
        threads=rollout.cpu_threads,
        more=rollout.engine_args,
    )


def _slots(recipe: Recipe, policies: int) -> AdapterSlots:
    """For the adapters of batches under way (`sdpo.training.prefetch`: a version each), and the one that is loaded."""
    adapter = recipe.model.adapter
    assert adapter is not None
    count = policies * max(1, recipe.rollout.staleness) + 1
    return AdapterSlots(adapter.rank, count, _adapted(recipe.model.path, adapter))


@cache
def _adapted(path: str, adapter: AdapterSettings) -> tuple[str, ...]:
    from transformers import AutoConfig

    from sdpo.learner.adapter import adapted_layers

    return adapted_layers(AutoConfig.from_pretrained(locate(path)), adapter)
