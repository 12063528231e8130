"""The count of a learner rank's memory, against PyTorch's tracker, and peaks measured on a GPU and here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import Qwen3Config

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.errors import UserError
from sdpo.learner.activations import layer_memory, losses_memory, response_tokens, typical_pack
from sdpo.learner.memory import learner_memory, longest_pack, total
from sdpo.learner.objective import Targets, build_objective
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.scores import check_scores, score_bytes
from sdpo.learner.shapes import shapes_of
from sdpo.losses.chunked import project, projected_loss
from tests.learner.families import family
from tests.learner.peak import SHAPES as PEAK_SHAPES

QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 40_960}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "tie_word_embeddings")
SHAPES = {
    "0.6B": (1024, 3072, 28, 16, True),
    "1.7B": (2048, 6144, 28, 16, True),
    "8B": (4096, 12_288, 36, 32, False),
    "32B": (5120, 25_600, 64, 64, False),
}
GPU_RESULTS = PROJECT / "docs" / "results" / "gpu"
ONE_GPU = ("learner.ranks=1", "rollout.engines=1", "learner.zero_stage=2")
PACK = ("learner.micro_batch_tokens=8192", "context.max_prompt_tokens=1024")
FULL = ("distillation.top_k=null", "distillation.tail=null")
GIB = 2**30
# Beside what is counted, the commits that were measured held the gradient of a chunk while they computed the next one.
HELD = 1024 * 151_936 * 4
GROUPS = typical_pack(8192, 1024, 1024, 8)


def shapes(name: str, recipe, layers: int | None = None):
    sizes = dict(zip(SIZES, SHAPES[name], strict=True)) | ({} if layers is None else {"num_hidden_layers": layers})
    config = Qwen3Config(**QWEN3, **sizes)
    return shapes_of(config, getattr(torch, recipe.model.dtype), recipe.model.attention, recipe.model.adapter)


def gpu_recipe(algorithm: str, *overrides: str):
    teacher = ("context.max_reprompt_tokens=4096",) if algorithm == "sdpo" else ()
    return load_recipe(find_recipe("livecodebench", algorithm), "gpu", (*ONE_GPU, *PACK, *teacher, *overrides))


class Update:
    """A micro-batch after another one, without DeepSpeed: plain PyTorch on the meta device, the project's losses."""

    def __init__(self, name: str, recipe, groups, layers: int) -> None:
        self.recipe, self.groups = recipe, groups
        self.student, self.teacher = (shapes(name, recipe, layers).model for _ in range(2))
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
    """The tracker takes long for many layers: it sees 2 and 3 of them, and each further one adds the same
    (`test_every_layer_adds_the_same`).  Inside of operators, as in the search for the top K, it does not see."""
    recipe = tracked_recipe(checkpointing)
    counted = learner_memory(recipe, plan_of(recipe), shapes(name, recipe))
    moments = {m: p for m, p in counted.moments.items() if m != "step"}
    for parts in moments.values():  # DeepSpeed's, which is not in the other side
        parts.pop("reduce bucket", None)
        parts.pop("reduction", None)
    peak = total(counted.resident) + max(map(total, moments.values()))
    two, three = (Update(name, recipe, GROUPS, layers).peak() for layers in (2, 3))
    assert peak == pytest.approx(two + (SHAPES[name][2] - 2) * (three - two), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_every_layer_adds_the_same(checkpointing):
    recipe = tracked_recipe(checkpointing)
    peaks = [Update("0.6B", recipe, GROUPS, layers).peak() for layers in (2, 3, 4)]
    assert peaks[2] - peaks[1] == peaks[1] - peaks[0] > 0


def tracked_recipe(checkpointing: str):
    options = (f"learner.gradient_checkpointing={checkpointing}", "rollout.max_response_tokens=1024")
    return gpu_recipe("sdpo", *options, *FULL)


def plan_of(recipe):
    return build_algorithm(recipe).plan


def read(name: str):
    return json.loads((GPU_RESULTS / name).read_text())


def test_a_run_measured_on_a_gpu():
    """Qwen3-0.6B's shape with a moving average: the largest peak of allocated memory in the learner."""
    lines = (GPU_RESULTS / "sized-sdpo" / "metrics.jsonl").read_text().splitlines()
    measured = max(json.loads(line).get("memory/learner_gpu_mb", 0) for line in lines)
    recipe = gpu_recipe("sdpo", "rollout.max_response_tokens=1024", "learner.updates_per_batch=2")
    counted = learner_memory(recipe, plan_of(recipe), shapes("0.6B", recipe))
    assert (total(counted.resident) + total(counted.update)) / 2**20 == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("name", ["0.6B", "8B"])
@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_a_step_measured_on_a_gpu(name, algorithm):
    """One response of 4,000 tokens behind a prompt of 1,000, gradients in bfloat16, no optimiser."""
    rows = {row[0]: float(row[4]) for row in read(f"learner_step_{name}.json")["rows"]}
    recipe = gpu_recipe(algorithm, *(FULL if algorithm == "sdpo" else ()))
    found = shapes(name, recipe)
    layers = layer_memory(found, (SharedPrefix(1000, (4000,)),))[0]
    kept = layers.output * len(found.layers) + 5000 * found.hidden * 10
    teachers = int(algorithm == "sdpo")
    losses = losses_memory(plan_of(recipe), found, 4000, 1024, True, teachers)
    losses += (1 + teachers) * 4000 * found.hidden * 2
    losses += HELD if teachers else HELD // 2  # without a teacher most is there now when that gradient is rounded
    peak = found.parameters * 4 + kept + max(losses, layers.backward)
    assert peak / GIB == pytest.approx(rows[algorithm.upper()], rel=0.1)


@pytest.mark.parametrize(("side", "options"), [("linear_divergence", FULL), ("linear_divergence, top 20", ())])
def test_chunks_of_logits_measured_on_a_gpu(side, options):
    """The measured peaks are without the two gradients that are handed over."""
    record = read("linear_divergence.json")
    recipe = gpu_recipe("sdpo", *options)
    found, tokens = shapes("8B", recipe), record["size"]["tokens"]
    handed_over = (tokens * found.hidden + found.head) * 2
    counted = losses_memory(plan_of(recipe), found, tokens, 1024, True, 1) + HELD - handed_over
    assert counted == pytest.approx(record["medians"][side]["peak_bytes"], rel=0.02)


@pytest.mark.parametrize(("kind", "kinds"), [("gemma3_text", 1), ("mistral", 1), ("qwen3_moe", 1), ("qwen3_next", 2)])
def test_layers_of_other_families_are_counted(kind, kinds):
    """Experts, layers that see a window, linear attention."""
    found = layer_memory(shapes_of(family(kind), torch.bfloat16), (SharedPrefix(0, (512,)),))
    assert len(found) == kinds
    for layer in found.values():
        assert layer.output == 512 * 32 * 2 < layer.saved < layer.backward


@pytest.mark.parametrize("kind", ["falcon", "stablelm", "gemma2", "gpt_oss", "bloom"])
def test_a_layer_that_runs_one_sequence_at_a_time_is_counted_with_its_scores(kind):
    """By transformers' sdpa, whose kernels make none, and by eager attention: what is kept of twice the tokens.  Falcon
    hands over a mask, of which PyTorch makes one of numbers."""
    form = "sdpa" if kind in ("falcon", "stablelm") else "eager"
    found = shapes_of(family(kind), torch.bfloat16, form, packs=False)
    short, long = (layer_memory(found, (SharedPrefix(0, (n,)),))[0] for n in (1024, 2048))
    squares = (long.saved - 2 * short.saved) / (2048**2 / 2) / 2  # numbers in bfloat16 for each pair of tokens
    heads = {"stablelm": 0, "falcon": 1}.get(kind, 4)
    assert squares == pytest.approx(heads, abs=0.1) or (heads == 4 and squares > 4)
    assert (long.given >= 2048**2) == (kind != "stablelm")  # the mask that the model makes for all its layers


def test_an_unpacked_pass_is_one_sequence():
    recipe = gpu_recipe("sdpo", "rollout.max_response_tokens=1024")
    off = as_if(recipe, learner={"packing": "off"})
    shapes = [shapes_of(family("qwen3"), torch.bfloat16, "flash_attention_2"),
              shapes_of(family("qwen3"), torch.bfloat16, "sdpa", packs=False)]  # fmt: skip
    packed, alone = (learner_memory(r, plan_of(r), s) for r, s in zip((recipe, off), shapes, strict=True))
    assert longest_pack(recipe) == 8192 and longest_pack(off) == recipe.max_model_len == 2048
    ratio = alone.moments["layers"]["activations"] / packed.moments["layers"]["activations"]
    assert ratio == pytest.approx(2048 / 8192, rel=0.02)


def as_if(recipe, **sections):
    """The recipe as the learner gets it, which need not be one that a user may write."""
    changed = {name: getattr(recipe, name).model_copy(update=options) for name, options in sections.items()}
    return recipe.model_copy(update=changed)


@pytest.mark.parametrize(("model", "packing", "heads", "message"), [
    ({"attention": "eager"}, "auto", 64, r"\(eager\).*108.4 GiB in each layer for 17,408 tokens.*model.attention=sdpa"),
    ({"attention": "eager"}, "off", 64, r"eager, one sequence per pass.*108.4 GiB.*learner.packing=auto"),
    ({"attention": "sdpa", "dtype": "float32"}, "off", 64, r"sdpa, one sequence per pass.*144.5 GiB"),
    ({"attention": "sdpa"}, "off", 64, None),
    ({"attention": "flex_attention", "dtype": "float32"}, "auto", 64, None),
    ({"attention": "eager"}, "auto", 1, None),
])  # fmt: skip
def test_scores_that_cannot_fit_are_refused(model, packing, heads, message):
    recipe = gpu_recipe("grpo", "rollout.max_response_tokens=16384")
    recipe = as_if(recipe, model=model, learner={"packing": packing})
    config = family("qwen3", num_attention_heads=heads, num_key_value_heads=1)
    if message is None:
        check_scores(recipe, config, 80 * GIB)
    else:
        with pytest.raises(UserError, match=message):
            check_scores(recipe, config, 80 * GIB)


def test_scores_are_no_more_than_what_a_layer_is_counted_to_make():
    """Refused is only what could not fit."""
    recipe = as_if(gpu_recipe("grpo"), model={"attention": "eager"}, learner={"packing": "off"})
    for kind in ("gemma2", "gpt_oss", "bloom"):
        layer = layer_memory(shapes_of(family(kind), torch.bfloat16, "eager", packs=False), (SharedPrefix(0, (2048,)),))
        assert 0 < score_bytes(recipe, family(kind), 2048) <= layer[0].forward


@pytest.mark.slow
@pytest.mark.parametrize("shape", PEAK_SHAPES)
def test_a_peak_measured_here(shape, tmp_path):
    """Two updates of a real learner in a process of its own, beyond what the process holds before it has a model."""
    command = [sys.executable, "-m", "tests.learner.peak", shape, str(tmp_path)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["counted"] == pytest.approx(found["measured"], rel=0.15), found
