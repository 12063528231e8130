"""Responses of the bundled policy to bundled problems, judged: the same for every side of a benchmark."""

from __future__ import annotations

import numpy as np
import torch
from sdpo.envs.code.load import load_dataset

from sandbox import Job, Sandbox, extract_code
from sdpo.algorithms import build_algorithm
from sdpo.config.model_files import load_tokenizer
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.prompts.context import ContextBuilder
from sdpo.types import Group, Problem, Rollout, Sample


def sampled_groups(recipe: Recipe, questions: int, responses: int) -> list[Group]:
    """One generation batch, sampled with transformers instead of vLLM (it starts faster), judged by the sandbox."""
    tokenizer, dataset = load_tokenizer(recipe), load_dataset(recipe)
    contexts = _contexts(recipe, tokenizer)
    problems = dataset.train[:questions]
    rollouts = _sample(recipe, tokenizer, [(p, contexts.prompt(p)) for p in problems for _ in range(responses)])
    with Sandbox() as sandbox:
        jobs = [
            Job(extract_code(r.text), p.training_tests, p.limits, p.files, truncated=r.truncated) for p, r in rollouts
        ]
        judgements = sandbox.judge_many(jobs)
    groups = []
    for i, problem in enumerate(problems):
        rows = slice(i * responses, (i + 1) * responses)
        groups.append(Group(problem, tuple(r for _, r in rollouts[rows]), tuple(judgements[rows])))
    return groups


def samples_of(recipe: Recipe, groups: list[Group]) -> list[Sample]:
    """What the recipe's algorithm makes of the groups, with the teacher's prompts that it would build."""
    contexts = _contexts(recipe, load_tokenizer(recipe))
    assigned = build_algorithm(recipe).assign(groups, contexts, np.random.default_rng(0))
    return [sample for group in assigned for sample in group]


def _contexts(recipe: Recipe, tokenizer) -> ContextBuilder:
    return ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)


@torch.no_grad()
def _sample(recipe: Recipe, tokenizer, wanted: list[tuple[Problem, tuple[int, ...]]]) -> list[tuple[Problem, Rollout]]:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(locate(recipe.model.path), dtype=torch.float32).eval()
    width = max(len(prompt) for _, prompt in wanted)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for _, p in wanted])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for _, p in wanted])
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
    for row, (problem, prompt) in enumerate(wanted):
        tokens = made.sequences[row, width:].tolist()
        length = next((i + 1 for i, t in enumerate(tokens) if t in ends), len(tokens))
        chosen = log_probs[row, range(length), tokens[:length]]
        text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
        reason = "stop" if tokens[length - 1] in ends else "length"
        out.append((problem, Rollout(prompt, tuple(tokens[:length]), text, chosen.numpy(), reason, 1)))
    return out
