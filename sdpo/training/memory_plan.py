"""Who holds how much at which moment of a run, on every kind of GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psutil
import torch

from sdpo.algorithms import build_algorithm
from sdpo.config.model_files import load_config
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.activations import layer_memory
from sdpo.learner.memory import LearnerMemory, Parts, learner_memory, teacher_memory, total
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.shapes import Shapes, shapes_of
from sdpo.rollout.memory import GIB, EngineMemory, engine_memory
from sdpo.rollout.startup import kv_cache_bytes, padded_rank
from sdpo.training.parts import as_computed
from sdpo.training.placement import engine_options

LEARNER_OVERHEAD = GIB  # CUDA's context and cuBLAS's workspaces
NCCL_OVERHEAD = GIB  # of a rank that has others
LEARNER_PROCESS, ENGINE_PROCESS = int(0.7 * GIB), 2 * GIB  # resident on a CPU before a model is there
KEPT_FREE = 0.05  # of a GPU: what the allocator loses between blocks of different sizes
_PASS = 2048  # tokens of the pass by which an engine's activations are counted


@dataclass(frozen=True)
class Device:
    """Devices of one kind: what each of them holds, by phase of a step."""

    name: str
    count: int
    memory: int  # bytes
    phases: dict[str, Parts]

    def fits(self, phase: str) -> bool:
        return total(self.phases[phase]) <= (1 - KEPT_FREE) * self.memory

    @property
    def worst(self) -> str:
        return max(self.phases, key=lambda phase: total(self.phases[phase]))


@dataclass(frozen=True)
class OwnTeacher:
    """The model of a teacher that has ranks of its own."""

    computed: Recipe  # `Recipe.of_teacher`, as it is computed
    shapes: Shapes
    config: Any


class MemoryPlan:
    """Of a recipe on GPUs of `gpu` bytes each (profile cpu: in this machine's memory).

    computed: the recipe as its model is computed (`sdpo.training.parts.as_computed`); teacher: one of its own.
    """

    def __init__(
        self, recipe: Recipe, computed: Recipe, gpu: int, shapes: Shapes, config: Any, teacher: OwnTeacher | None = None
    ) -> None:
        self.recipe, self.gpu, self.shapes, self.config = recipe, gpu, shapes, config
        self.own_teacher = teacher
        width = None if teacher is None else teacher.shapes.hidden
        self.learner: LearnerMemory = learner_memory(computed, build_algorithm(recipe).plan, shapes, width)
        self.teacher: Parts = {} if teacher is None else teacher_memory(teacher.computed, teacher.shapes)
        self.on_gpu = recipe.profile == "gpu"

    @cached_property
    def engine(self) -> EngineMemory:
        """On a CPU with the cache that the engine would like to have; it takes half of the free memory at most."""
        activations = self._activations(_PASS)
        if not self.shapes.packs:
            # Without what grows with the square of the tokens: an engine has attention of its own.
            activations = (4 * activations - self._activations(2 * _PASS)) // 2
        width = 4 if self.recipe.model.dtype == "float32" else 2
        weights = (self.shapes.parameters - self._adapter) * width + self._loaded * width
        found = engine_memory(self.recipe, self.config, weights, activations // _PASS, self.gpu)
        if self.on_gpu:
            return found
        cache = kv_cache_bytes(found.token, engine_options(self.recipe), available=2**62)
        return EngineMemory(weights, 0, ENGINE_PROCESS, cache, found.token)

    def _activations(self, tokens: int) -> int:
        groups = (SharedPrefix(0, (tokens,)),)
        return max(layer.forward for layer in layer_memory(self.shapes, groups).values())

    @property
    def _adapter(self) -> int:
        return 0 if self.recipe.model.adapter is None else self.shapes.trained

    @property
    def _loaded(self) -> int:
        """Elements of an engine's room for adapters, which vLLM fills up with zeros to a rank that it has."""
        if (slots := engine_options(self.recipe).adapters) is None:
            return 0
        return slots.count * self._adapter // slots.rank * padded_rank(slots.rank)

    @cached_property
    def devices(self) -> list[Device]:
        recipe, learner, engine = self.recipe, self.learner, self.engine
        ranks, engines = recipe.learner.ranks, recipe.rollout.engines
        overhead = {"CUDA, NCCL": LEARNER_OVERHEAD + NCCL_OVERHEAD * (ranks > 1)}
        own, between = learner.resident | overhead, learner.between | overhead
        awake = {"engine's weights": engine.weights, "engine's work": engine.working + engine.overhead}
        whole = awake | {"keys and values": max(0, engine.cache)}
        loading = {"engine loads": self._reload()}
        if not self.on_gpu:
            return [self._machine()]
        if recipe.rollout.colocated:
            asleep = {"engine, asleep": engine.overhead}
            phases = {
                "generate": between | whole,
                "update": own | learner.update | asleep,
                "publish": between | learner.publishing | asleep | {"engine's weights": engine.weights} | loading,
                "checkpoint": between | learner.saving | whole,
            }
            return [Device("shared", ranks, self.gpu, phases), *self._teachers()]
        learns = {
            "generate": own,
            "update": own | learner.update,
            "publish": own | learner.publishing,
            "checkpoint": own | learner.saving,
        }
        serves = {"generate": whole, "publish": whole | loading}
        width = recipe.rollout.tensor_parallel_size
        own = [Device("learner", ranks, self.gpu, learns), Device("engine", engines * width, self.gpu, serves)]
        return [*own, *self._teachers()]

    def _teachers(self) -> list[Device]:
        ranks = self.recipe.teacher_ranks
        return [Device("teacher", ranks, self.gpu, {"score": self.teacher | {"CUDA": LEARNER_OVERHEAD}})] * (ranks > 0)

    def _machine(self) -> Device:
        """Learner and engines take turns on the cores, and have their memory side by side."""
        ranks, engines = self.recipe.learner.ranks, self.recipe.rollout.engines
        teachers = self.recipe.teacher_ranks
        memory = psutil.virtual_memory()
        always = {f"learner's {name}": ranks * size for name, size in self.learner.resident.items()}
        cache = min(self.engine.cache, memory.available // 2)
        always |= {
            "engines' weights": engines * self.engine.weights,
            "keys and values": engines * cache,
            "processes": (ranks + teachers) * LEARNER_PROCESS + engines * ENGINE_PROCESS,
        }
        always |= {f"teacher's {name}": teachers * size for name, size in self.teacher.items()}
        update = {name: ranks * size for name, size in self.learner.update.items()}
        publish = {name: size for name, size in self.learner.publishing.items()}
        saving = self.learner.saving | self.learner.host
        phases = {"generate": always, "update": always | update, "publish": always | publish}
        return Device("this machine", 1, memory.total, phases | {"checkpoint": always | saving})

    def _reload(self) -> int:
        """A layer as the engine loads it anew, and its copy of the bucket; an adapter has its room already."""
        if self.recipe.loads_adapter:
            return 0
        width = self.engine.weights / max(1, self.shapes.parameters)
        bucket = self.recipe.rollout.weight_bucket_mb * 2**20
        return int(self.shapes.layer * width) + max(bucket, int(self.shapes.matrix * width))

    @property
    def host(self) -> Parts:
        """In the memory of a machine with all ranks, while a checkpoint is written and engines work."""
        parts = {
            name: size * (1 if name == "exported policy" else self.recipe.learner.ranks)
            for name, size in self.learner.host.items()
        }
        if self.own_teacher is not None:  # of a batch, in Ray's shared memory; what has no room there lies on disk
            parts["teacher's answers"] = self.recipe.samples_per_step * self._answer(self.own_teacher)
        return parts

    def _answer(self, teacher: OwnTeacher) -> int:
        """Bytes of the hidden states that it gives for the longest response."""
        width = getattr(torch, self.recipe.model.dtype).itemsize
        blends = self.recipe.distillation is not None and self.recipe.distillation.blend is not None
        states = 1 + blends + len(self.recipe.layer_pairs)
        turns = self.recipe.environment.turns
        return states * turns * self.recipe.rollout.max_response_tokens * teacher.shapes.hidden * width

    @property
    def fits(self) -> bool:
        return all(d.fits(phase) for d in self.devices for phase in d.phases) and self.sequences >= 1

    @property
    def sequences(self) -> int:
        """Of full length in an engine's cache."""
        return self.engine.sequences(self.recipe.max_model_len)

    @property
    def largest_utilization(self) -> float | None:
        """`rollout.gpu_memory_utilization` beside the learner, rounded down; None where nobody shares a GPU."""
        if not (self.on_gpu and self.recipe.rollout.colocated):
            return None
        shared = self.devices[0].phases["checkpoint"]
        engine = sum(size for name, size in shared.items() if name.startswith(("engine's", "keys")))
        left = (1 - KEPT_FREE) * self.gpu - (total(shared) - engine)
        return max(0.0, math.floor(100 * left / self.gpu) / 100)


class Planner:
    """Plans of one recipe and of others that differ in where it computes."""

    def __init__(self, recipe: Recipe, gpu: int) -> None:
        self.recipe, self.gpu, self.config = recipe, gpu, load_config(recipe)
        self._shapes: dict[Any, Shapes] = {}

    def shapes(self, recipe: Recipe, config: Any = None) -> Shapes:
        """config: of the recipe's model; None: of the planner's."""
        model = recipe.model
        packs = recipe.learner.packing == "auto"
        key = (model.path, model.dtype, model.attention, model.adapter, packs)
        if key not in self._shapes:
            dtype = getattr(torch, model.dtype)
            self._shapes[key] = shapes_of(config or self.config, dtype, model.attention, model.adapter, packs)
        return self._shapes[key]

    def _teacher(self, recipe: Recipe) -> OwnTeacher | None:
        if not recipe.teacher_ranks:
            return None
        computed = as_computed(recipe.of_teacher())[0]
        config = self.config if computed.model.path == self.recipe.model.path else load_config(computed)
        return OwnTeacher(computed, self.shapes(computed, config), config)

    def plan(self, recipe: Recipe | None = None) -> MemoryPlan:
        """Raises UserError for a model whose memory cannot be counted."""
        recipe = recipe or self.recipe
        try:
            computed = as_computed(recipe)[0]
            given = recipe, computed, self.gpu, self.shapes(computed), self.config
            return MemoryPlan(*given, self._teacher(recipe))
        except UserError:
            raise
        except Exception as error:  # what models that look at the values of tensors raise on the meta device
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"The memory of {recipe.model.path} ({self.config.model_type}) cannot be counted without running it: "
                f"{reason}"
            ) from error
