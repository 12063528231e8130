"""A small random Qwen3 model, recipes around it, and random samples, for tests of the learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.schema import Recipe
from sdpo.learner.group import Learner
from sdpo.learner.rank import LearnerRank
from sdpo.learner.rows import assign_to_ranks, loss_weighted_rows, split
from sdpo.supervision.part import Part
from sdpo.supervision.watch import Watch
from sdpo.types import Group, Outcome, Rollout, Sample, TeacherContext
from tests.helpers.tasks import RIGHT, problem, turn

VOCABULARY = 4099  # × 32: more than DeepSpeed keeps gathered under ZeRO-3 whatever happens
ROUNDED = ("context.template=published", "context.max_prompt_tokens=2048", "context.max_reprompt_tokens=2048")


def make_model(path: Path, tied: bool = True, **sizes: int) -> Path:
    torch.manual_seed(0)
    usual = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    }
    config = Qwen3Config(**(usual | sizes), tie_word_embeddings=tied, initializer_range=0.3)
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


def recipe(model: Path, algorithm: str = "sdpo", *overrides: str) -> Recipe:
    common = (f"model.path={model}", "learner.cpu_threads=1", "run.questions=4")
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", (*common, *overrides))


def samples(count: int, seed: int = 0, same_context: bool = False, reference: bool = False) -> list[Sample]:
    """Responses of 1 to 11 tokens; every third one has no teacher context, unless contexts are the prompts.

    Up to three share a prompt, with which their teacher contexts begin.
    """
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        length = int(rng.integers(1, 12))
        if i % 4 in (0, 3):
            prompt = tuple(rng.integers(0, VOCABULARY, rng.integers(3, 20)).tolist())
        other = (*prompt, *rng.integers(0, VOCABULARY, rng.integers(1, 8)).tolist())
        taught = same_context or i % 3 != 1
        made.append(
            Sample(
                prompt_ids=prompt,
                response_ids=tuple(rng.integers(0, VOCABULARY, length).tolist()),
                sampler_log_probs=rng.normal(-4.5, 0.3, length).astype(np.float32),
                advantages=np.full(length, rng.normal(), np.float32),
                teacher=TeacherContext(prompt if same_context else other, np.ones(length, np.float32))
                if taught
                else None,
                reference_weight=np.ones(length, np.float32) if reference else None,
            )
        )
    return made


def dealt(recipe: Recipe, batch: list[Sample], ranks: int = 1, tokens: int | None = None):
    """What each rank trains on for one optimiser step, as the driver deals it out."""
    rows = loss_weighted_rows(batch, build_algorithm(recipe).plan, recipe.rollout.max_response_tokens)
    return assign_to_ranks(rows, split(rows, ranks, tokens or recipe.learner.pass_tokens))


def named_weights(worker) -> dict[str, torch.Tensor]:
    """Names within the model and full tensors, persistent buffers included; a tied one comes once.  Collective."""
    from sdpo.learner.export import named_state  # DeepSpeed asks for its accelerator when it is imported

    return {name: tensor.clone() for tensors in named_state(worker.student.model) for name, tensor in tensors}


def loss_and_gradient(worker, micro_batches) -> tuple[float, dict[str, torch.Tensor]]:
    """Without an optimiser step: the loss of the micro-batches and the gradients that they accumulate."""
    total = 0.0
    for rows in micro_batches:
        loss, _ = worker.passes.loss(rows)
        worker.engine.backward(loss)
        total += loss.item()
    gradients = {name: p.grad.clone() for name, p in worker.student.model.named_parameters() if p.requires_grad}
    worker.student.zero_grad(set_to_none=True)
    return total, gradients


def reference_log_probs(model, sample, temperature=1.0, prompt=None) -> torch.Tensor:
    """[R] float64 from full logits of one unpadded sequence."""
    prompt = sample.prompt_ids if prompt is None else prompt
    ids = torch.tensor([[*prompt, *sample.response_ids]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1)


class InProcessRank:
    """A `LearnerRank` of this process, called as its actor is."""

    def __init__(self, worker) -> None:
        self.rank = LearnerRank.__new__(LearnerRank)
        self.rank.worker, self.rank.busy_seconds, self.rank.gpu_peaks = worker, 0.0, {}

    def __getattr__(self, name: str):
        async def remote(*arguments):
            return getattr(self.rank, name)(*arguments)

        return SimpleNamespace(remote=remote)


class InProcess(Learner):
    """The driver's handle on one worker of this process."""

    def __init__(self, recipe: Recipe, worker) -> None:
        self.recipe, self.plan, self.skipped = recipe, build_algorithm(recipe).plan, 0
        self.ranks, self.parts, self.watch = [InProcessRank(worker)], [Part("learner rank 0", {})], Watch()


def groups(passed: list[list[bool]]) -> list[Group]:
    """Random responses of 1 to 9 tokens to problems with a reference solution."""
    rng, made = np.random.default_rng(7), []
    for p, row in enumerate(passed):
        asked = problem(f"Add {p} numbers.", solution=f"print({p})")
        rollouts = []
        for i, success in enumerate(row):
            ids = tuple(rng.integers(0, VOCABULARY, 1 + (5 * p + 4 * i) % 9).tolist())
            prompt = tuple(rng.integers(0, VOCABULARY, 6 + i).tolist())
            outcome = (
                RIGHT if success else Outcome(0.0, feedback="The program could not be judged.", label="wrong answer")
            )
            unknown = np.full(len(ids), np.nan, np.float32)
            answer = turn(f"answer {i}", outcome, prompt_ids=prompt, response_ids=ids)
            rollouts.append(Rollout((replace(answer, sampler_log_probs=unknown),)))
        made.append(Group(asked, tuple(rollouts)))
    return made
