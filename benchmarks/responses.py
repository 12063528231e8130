"""Responses of the bundled policy to bundled problems, graded: the same for every side of a benchmark."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import torch

from sdpo.algorithms import build_algorithm
from sdpo.config.model_files import load_tokenizer
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.envs import Environment, build_environment
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Rollout, Sample, Task, Turn, VersionSpan

LONGEST, SIGMA = 20, 1.0  # × the median; of the logarithm, so that one of 700 responses is cut


def lengths(
    rng: np.random.Generator,
    size: tuple[int, ...] | None,
    longest: int,
    median: float | None = None,
    sigma: float = SIGMA,
) -> np.ndarray:
    """Tokens of responses with a long tail: log-normal, whole numbers from 1 to `longest`.

    median: default: a twentieth of the longest.
    """
    drawn = np.exp(rng.normal(0.0, sigma, size)) * (longest / LONGEST if median is None else median)
    return np.clip(drawn, 1, longest).astype(int)


def long_tailed(samples: list[Sample], longest: int) -> list[Sample]:
    """The samples with responses of such lengths, the longest there is among them: each repeated, or cut off."""
    drawn = lengths(np.random.default_rng(0), (len(samples),), longest)
    drawn[drawn.argmax()] = longest
    return [_resized(sample, int(n)) for sample, n in zip(samples, drawn, strict=True)]


def _resized(sample: Sample, tokens: int) -> Sample:
    per_token = ("sampler_log_probs", "advantages", "reference_weight")
    values = {name: getattr(sample, name) for name in per_token if getattr(sample, name) is not None}
    resized = {name: np.resize(value, tokens) for name, value in values.items()}
    if sample.teacher is not None:
        resized["teacher"] = replace(sample.teacher, weight=np.resize(sample.teacher.weight, tokens))
    return replace(sample, response_ids=tuple(np.resize(sample.response_ids, tokens).tolist()), **resized)


def sampled_groups(recipe: Recipe, questions: int, responses: int) -> list[Group]:
    """One generation batch, sampled with transformers instead of vLLM (it starts faster), graded by its environment."""
    tokenizer = load_tokenizer(recipe)
    contexts = _contexts(recipe, tokenizer)
    with build_environment(recipe) as environment:
        tasks = environment.load().train[:questions]
        asked = [task for task in tasks for _ in range(responses)]
        turns = _sample(recipe, tokenizer, [contexts.prompt(task) for task in asked])
        graded = asyncio.run(_grade(environment, asked, turns))
    return [
        Group(task, tuple(Rollout((turn,)) for turn in graded[i * responses : (i + 1) * responses]))
        for i, task in enumerate(tasks)
    ]


async def _grade(environment: Environment, tasks: list[Task], turns: list[Turn]) -> list[Turn]:
    grading = (environment.grade(task, turn, "training") for task, turn in zip(tasks, turns, strict=True))
    outcomes = await asyncio.gather(*grading)
    return [replace(turn, outcome=outcome) for turn, outcome in zip(turns, outcomes, strict=True)]


def samples_of(recipe: Recipe, groups: list[Group]) -> list[Sample]:
    """What the recipe's algorithm makes of the groups, with the teacher's prompts that it would build."""
    contexts = _contexts(recipe, load_tokenizer(recipe))
    assigned = build_algorithm(recipe).assign(groups, contexts, np.random.default_rng(0))
    return [sample for group in assigned for sample in group]


def _contexts(recipe: Recipe, tokenizer) -> ContextBuilder:
    return ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)


@torch.no_grad()
def _sample(recipe: Recipe, tokenizer, prompts: list[tuple[int, ...]]) -> list[Turn]:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(locate(recipe.model.path), dtype=torch.float32).eval()
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=recipe.rollout.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=recipe.rollout.max_response_tokens,
        return_dict_in_generate=True,
        output_logits=True,
    )
    log_probs = torch.stack(made.logits, 1).log_softmax(-1)
    eos = model.generation_config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos])
    out = []
    for row, prompt in enumerate(prompts):
        tokens = made.sequences[row, width:].tolist()
        length = next((i + 1 for i, t in enumerate(tokens) if t in ends), len(tokens))
        chosen = log_probs[row, range(length), tokens[:length]]
        text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
        reason = "stop" if tokens[length - 1] in ends else "length"
        span = VersionSpan(1, 0, length)
        out.append(Turn(prompt, tuple(tokens[:length]), chosen.numpy(), reason, (span,), text))
    return out
