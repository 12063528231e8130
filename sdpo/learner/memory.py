"""What one rank of the learner holds on its device, and what its checkpoints take of the host: bytes by part.

The sizes follow from what this package and DeepSpeed allocate (`sdpo.learner.worker`, `sdpo.learner.deepspeed_config`);
those of activations are counted (`sdpo.learner.activations`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdpo.algorithms.base import LossPlan
from sdpo.config.model_files import longest_sequence
from sdpo.config.schema import Recipe
from sdpo.learner.activations import layer_memory, losses_memory, response_tokens, typical_pack
from sdpo.learner.deepspeed_config import BUCKET_ELEMENTS
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.shapes import Shapes

Parts = dict[str, int]  # bytes by name

GATHERED_ELEMENTS = (
    1_000_000_000  # DeepSpeed's default of what ZeRO-3 keeps gathered, and of what it steps on at a time
)
ALLREDUCE_ELEMENTS = 500_000_000  # DeepSpeed's buffer for gradients without ZeRO
FP32 = 4
_OFFLOADED = {"optimiser", "master weights", "moving average", "initial policy"}  # by `learner.offload_states`


@dataclass(frozen=True)
class LearnerMemory:
    """Of one rank."""

    resident: Parts  # from the first update to the run's end
    between: Parts  # what of it is there while engines work
    moments: dict[str, Parts]  # of an update: what is there beside the resident
    publishing: Parts  # the same while weights go to the engines
    saving: Parts  # the same while a checkpoint is written
    host: Parts  # for a checkpoint, in the rank that takes most, and for what it offloads

    @property
    def update(self) -> Parts:
        """Of the moment that takes most."""
        return max(self.moments.values(), key=total)


def total(parts: Parts) -> int:
    return sum(parts.values())


def teacher_memory(recipe: Recipe, shapes: Shapes) -> Parts:
    """Of one rank of a teacher of its own, which holds its whole model and makes passes without gradient.

    recipe: with the teacher's model (`Recipe.of_teacher`), as it is computed; shapes: of it.
    """
    width = getattr(torch, recipe.model.dtype).itemsize
    tokens = max(longest_pack(recipe), longest_sequence(recipe))
    layers = layer_memory(shapes, full_pass(recipe, shapes, tokens)).values()
    states = tokens * shapes.hidden * width * (1 + len(recipe.layer_pairs))
    passing = max(layer.forward + layer.given for layer in layers)
    return {"weights": shapes.parameters * width, "a pass without gradient": passing + states}


def longest_pack(recipe: Recipe) -> int:
    """Tokens of the student's largest pack: a sequence that is longer than a micro-batch is one by itself."""
    return max(recipe.learner.pass_tokens, recipe.max_model_len)


def full_pass(recipe: Recipe, shapes: Shapes, tokens: int) -> tuple[SharedPrefix, ...]:
    """A full pass of so many tokens; without packing one sequence."""
    prompt, rollout = recipe.context.max_prompt_tokens, recipe.rollout
    if shapes.packs:
        return typical_pack(tokens, prompt, rollout.max_response_tokens, rollout.responses)
    return (SharedPrefix(prompt, (tokens - prompt,)),)


def learner_memory(recipe: Recipe, plan: LossPlan, shapes: Shapes, teacher_hidden: int | None = None) -> LearnerMemory:
    """Of a recipe with `learner.packing` and `model.attention` as its model is computed.

    shapes: of the recipe's model, with its adapter; teacher_hidden: width of a teacher of its own, None: the policy's.
    """
    return _Rank(recipe, plan, shapes, teacher_hidden or shapes.hidden).memory()


class _Rank:
    def __init__(self, recipe: Recipe, plan: LossPlan, shapes: Shapes, teacher_hidden: int) -> None:
        self.recipe, self.plan, self.shapes, self.teacher_hidden = recipe, plan, shapes, teacher_hidden
        self.width = getattr(torch, recipe.model.dtype).itemsize
        self.half = self.width < FP32
        self.stage, self.ranks = recipe.learner.zero_stage, recipe.learner.ranks
        self.projections = len(recipe.layer_pairs) * shapes.hidden * teacher_hidden  # elements, of `LayerProjections`
        self.optimised = shapes.trained + self.projections
        self.bucket = min(BUCKET_ELEMENTS, self.optimised)
        self.kind = None if recipe.teacher is None else recipe.teacher.kind
        self.average = recipe.teacher_has_average
        self.elsewhere = bool(recipe.teacher_ranks)  # whether others compute the teacher

    def memory(self) -> LearnerMemory:
        resident = self._resident()
        away = _OFFLOADED & resident.keys() if self.recipe.learner.offload_states else set()
        between = {name: size for name, size in resident.items() if name not in away}
        host = self._host()
        if away:
            host["offloaded states"] = total(resident) - total(between)
        return LearnerMemory(resident, between, self._moments(), self._publishing(), self._saving(), host)

    def _shared(self, elements: int, stage: int) -> int:
        """Elements of one rank, of what ZeRO shares out from this stage on."""
        return -(-elements // self.ranks) if self.stage >= stage else elements

    def _resident(self) -> Parts:
        shapes, whole = self.shapes, self.recipe.model.adapter is None
        own = self._shared(shapes.parameters if whole else shapes.trained, 3)  # of a second set of weights
        parts = {"weights": self._shared(shapes.parameters + self.projections, 3) * self.width}
        trained = self._shared(self.optimised, 1)
        parts["optimiser"] = trained * 2 * FP32  # two moments
        if self.half or self.stage:
            parts["master weights"] = trained * FP32
        if self.average:
            parts["moving average"] = own * (FP32 + (whole and not self.elsewhere) * self.half * self.width)
        frozen = self.kind in ("frozen", "trust_region") and not self.average
        if self.elsewhere:
            frozen = frozen and self.recipe.probe.every > 0  # for the engines
            parts["teacher's head"] = shapes.vocabulary * self.teacher_hidden * self.width
        if frozen or self.recipe.reference is not None:
            parts["initial policy"] = own * self.width
        if self.stage == 3:
            parts |= self._gradients() | {"reduce bucket": self.bucket * FP32}
        return parts

    def _gradients(self) -> Parts:
        return {"gradients": self._shared(self.optimised, 2) * FP32}

    def _moments(self) -> dict[str, Parts]:
        """Where an update may take most; gradients of earlier micro-batches are there already."""
        shapes, tokens = self.shapes, longest_pack(self.recipe)
        groups = full_pass(self.recipe, shapes, tokens)
        layers = layer_memory(shapes, groups)
        each = [layers[kind] for kind in shapes.kinds]
        recomputed = self.recipe.learner.gradient_checkpointing
        row = tokens * shapes.hidden
        states = row * self.width + row * (FP32 + 2 * self.width)  # the embeddings, the last norm and its result
        kept = states + each[0].given + sum(layer.output if recomputed else layer.saved for layer in each)
        worst = max(layer.backward - (0 if recomputed else layer.saved) for layer in layers.values())

        during = {} if self.stage == 3 else self._gradients()
        backward = dict(during)
        if self.stage in (1, 2):
            backward["reduce bucket"] = self.bucket * (self.width if self.stage == 2 else FP32)
        gathered = self._gathered()
        theirs = max(tokens, longest_sequence(self.recipe))  # of the teacher's largest pack
        passing = max(
            layer.forward + layer.given
            for layer in layer_memory(shapes, full_pass(self.recipe, shapes, theirs)).values()
        )
        head = shapes.head * shapes.head_trains * self.width  # the gradient, as it comes
        step = dict(during)
        if copied := self._stepped():
            step["gradients, flat"] = copied * FP32
        without = {"a pass without gradient": passing + theirs * shapes.hidden * self.width}
        asked = {} if self.elsewhere and self.kind != "trust_region" else {"teacher": during | gathered | without}
        return asked | {
            "losses": during | gathered | {"activations": kept, "logits, the head's gradient": self._losses(groups)},
            "head": backward | gathered | {"activations": kept, "the head's gradient": self._reduced(head)},
            "layers": backward
            | gathered
            | {"activations": kept, "a layer's backward pass": worst + shapes.tied * head}
            | {"reduction": self._copied(self.bucket)},
            "embedding": backward | gathered | {"the embedding's gradient": self._reduced(head) + shapes.tied * head},
            "step": step,
        }

    def _losses(self, groups) -> int:
        """Chunks of logits and what belongs to them, hidden states of all responses by student and teacher."""
        learner, tokens = self.recipe.learner, response_tokens(groups)
        teachers = 0
        if self.kind is not None:
            blended = self.plan.distillation is not None and self.plan.distillation.blend is not None
            teachers = (2 if self.kind == "trust_region" else 1) * (1 + blended)
        triton = learner.triton and self.recipe.profile == "gpu"
        chunks = losses_memory(self.plan, self.shapes, tokens, learner.chunk_tokens, triton, teachers)
        states = tokens * (self.shapes.hidden + teachers * self.teacher_hidden) * self.width
        return chunks + states + len(self.recipe.layer_pairs) * tokens * self._between()

    def _between(self) -> int:
        """Bytes of a token in the loss between two layers: states of both, the projected ones, and their difference,
        whose float32 copies are there twice while it is squared."""
        return (self.shapes.hidden + 2 * self.teacher_hidden) * self.width + 3 * self.teacher_hidden * FP32

    def _reduced(self, gradient: int) -> int:
        """A gradient of so many bytes, and the copies in which it is summed up over the ranks."""
        return gradient + self._copied(gradient // self.width)

    def _copied(self, elements: int) -> int:
        """Bytes of the copies in which so many gradients are summed up over the ranks."""
        if self.stage == 3:  # one copy in fp32 (the bucket is one), one in the order of the ranks, and the own share
            cast = self.half and elements > self.bucket
            return elements * FP32 * (1 + cast) + elements * FP32 // self.ranks
        return elements * FP32 if self.stage == 2 and self.half else 0

    def _gathered(self) -> Parts:
        """What ZeRO-3 holds of weights in full: those that come next or again soon, and the head of a second model."""
        if self.stage < 3:
            return {}
        own = (self.average or self.kind in ("frozen", "trust_region")) and not self.elsewhere
        heads = int(own and self.recipe.model.adapter is None)
        student = min(self.shapes.parameters, max(GATHERED_ELEMENTS, self.shapes.head))
        return {"gathered weights": (student + heads * self.shapes.head) * self.width}

    def _stepped(self) -> int:
        """Gradients that are copied into one flat tensor before the optimiser's step."""
        trained = self._shared(self.optimised, 1)
        if self.stage == 3:
            return min(trained, GATHERED_ELEMENTS)
        if self.stage:
            return 0 if self.half else trained
        return min(trained, ALLREDUCE_ELEMENTS) if self.ranks > 1 else 0

    def _publishing(self) -> Parts:
        """A bucket under way, the next one that is packed meanwhile, and the buffer that engines read."""
        if self.recipe.loads_adapter:
            return {"gathered adapter": self.shapes.trained * self.width} if self.stage == 3 else {}
        bucket = max(self.recipe.rollout.weight_bucket_mb * 2**20, self.shapes.matrix * self.width)
        parts = {"buckets": 3 * bucket} | self._layer_in_full()
        if self.recipe.model.adapter is not None:
            matrix = max(p.numel() for layer in self.shapes.layers for p in layer.parameters())
            parts["merged layer"] = self.shapes.layer * self.width + matrix * 2 * FP32
        return parts

    def _saving(self) -> Parts:
        return self._layer_in_full()

    def _layer_in_full(self) -> Parts:
        largest = max(self.shapes.layer, self.shapes.matrix)
        return {"gathered layer": largest * self.width} if self.stage == 3 else {}

    def _host(self) -> Parts:
        shapes = self.shapes
        written = shapes.parameters if self.recipe.model.adapter is None else shapes.trained
        parts = {"exported policy": written * self.width}  # in rank 0
        if self.recipe.run.asynchronous_checkpoints:
            share = -(-self.optimised // self.ranks)
            parts["weights and optimiser, copied"] = share * 3 * FP32
            if self.average:
                parts["moving average, copied"] = -(-shapes.trained // self.ranks) * FP32
        return parts
