"""The count of a learner rank's memory: against PyTorch's tracker, peaks measured on a GPU, and peaks of processes here."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import Qwen3Config

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.learner.activations import layer_memory, losses_memory, response_tokens, typical_pack
from sdpo.learner.memory import learner_memory, total
from sdpo.learner.objective import Targets, build_objective
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.shapes import shapes_of
from sdpo.losses.chunked import project, projected_loss

QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 40_960}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "tie_word_embeddings")
SHAPES = {
    "0.6B": (1024, 3072, 28, 16, True),
    "1.7B": (2048, 6144, 28, 16, True),
    "8B": (4096, 12_288, 36, 32, False),
    "32B": (5120, 25_600, 64, 64, False),
}
ONE_GPU = ("learner.ranks=1", "rollout.engines=1", "learner.zero_stage=2")
PACK = ("learner.micro_batch_tokens=8192", "context.max_prompt_tokens=1024", "context.max_reprompt_tokens=4096")
GIB = 2**30


def shapes(name: str, recipe):
    config = Qwen3Config(**QWEN3, **dict(zip(SIZES, SHAPES[name], strict=True)))
    return shapes_of(config, getattr(torch, recipe.model.dtype), recipe.model.attention, recipe.model.adapter)


def gpu_recipe(algorithm: str, *overrides: str):
    return load_recipe(find_recipe("livecodebench", algorithm), "gpu", (*ONE_GPU, *PACK, *overrides))


class Update:
    """One micro-batch after another one, without DeepSpeed: plain PyTorch on the meta device, with the project's losses."""

    def __init__(self, name: str, recipe, groups) -> None:
        self.recipe, self.groups = recipe, groups
        self.student, self.teacher = (shapes(name, recipe).model for _ in range(2))
        if recipe.learner.gradient_checkpointing:
            self.student.gradient_checkpointing_enable({"use_reentrant": False})
            self.student.train()
        trained = [p for p in self.student.parameters() if p.requires_grad]
        self.gradients = {p: torch.empty_like(p, dtype=torch.float32) for p in trained}
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(self._accumulate)
        self.held = [torch.empty(3, p.numel(), device="meta") for p in trained]  # master weights and moments
        self.held += [torch.empty_like(p, dtype=torch.float32) for p in self.teacher.parameters()]  # moving average

    def _accumulate(self, parameter) -> None:
        self.gradients[parameter].add_(parameter.grad.float())
        parameter.grad = None

    def _hidden(self, model):
        ids = torch.zeros(1, sum(group.length for group in self.groups), dtype=torch.int64, device="meta")
        body = model.base_model(input_ids=ids, position_ids=ids, groups=self.groups, use_cache=False)
        rows = torch.zeros(response_tokens(self.groups), dtype=torch.int64, device="meta")
        return body.last_hidden_state[0].index_select(0, rows)

    def peak(self) -> int:
        tracker = MemTracker()
        tracker.track_external(self.student, self.teacher, *self.gradients.values(), *self.held)
        with tracker:
            with torch.no_grad():
                theirs = self._hidden(self.teacher)
            own = self._hidden(self.student)
            learner, head = self.recipe.learner, self.teacher.get_output_embeddings().weight
            numbers = [torch.empty(len(own), device="meta") for _ in range(5)]
            ids = torch.zeros(len(own), dtype=torch.int64, device="meta")
            targets = Targets(ids, *numbers, *[None] * 4)
            objective = build_objective(
                build_algorithm(self.recipe).plan, targets, lambda rows: project(theirs[rows], head), learner.triton
            )
            weight = self.student.get_output_embeddings().weight
            projected_loss(own, weight, objective, chunk_tokens=learner.chunk_tokens)[0].backward()
        return tracker.get_tracker_snapshot("peak")[torch.device("meta")]["Total"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["true", "false"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_count_is_what_pytorchs_tracker_sees(name, checkpointing):
    recipe = gpu_recipe("sdpo", f"learner.gradient_checkpointing={checkpointing}", "rollout.max_response_tokens=1024")
    groups = typical_pack(8192, 1024, 1024, 8)
    counted = learner_memory(recipe, build_algorithm(recipe).plan, shapes(name, recipe))
    moments = {m: p for m, p in counted.moments.items() if m != "step"}
    for parts in moments.values():  # DeepSpeed's, which is not in the other side
        parts.pop("reduce bucket", None)
        parts.pop("reduction", None)
    peak = total(counted.resident) + max(map(total, moments.values()))
    assert peak == pytest.approx(Update(name, recipe, groups).peak(), rel=0.1)
