"""The peak of a learner's process on a CPU beside the count of it, for one shape:
python -m tests.learner.peak SHAPE FOLDER        # prints {"measured": bytes, "counted": bytes, …}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdpo.types import Sample, TeacherContext

# hidden size, width within MLPs, layers, vocabulary; options of the recipe
SHAPES = {
    "deep": ((256, 1024, 8, 2000), ("learner.zero_stage=0",)),
    "wide vocabulary": ((256, 512, 3, 40_000), ("learner.zero_stage=2", "learner.gradient_checkpointing=true")),
}
PROMPT, RESPONSE, RESPONSES, GROUPS = 64, 192, 4, 3


def recipe_of(shape: str, folder: Path):
    from sdpo.config.files import find_recipe, load_recipe

    (hidden, inner, layers, vocabulary), options = SHAPES[shape]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    sizes = (f"context.max_prompt_tokens={PROMPT}", f"context.max_reprompt_tokens={2 * PROMPT}")
    sizes += (f"rollout.max_response_tokens={RESPONSE}", f"rollout.responses={RESPONSES}")
    tokens = f"learner.micro_batch_tokens={GROUPS * (PROMPT + RESPONSES * RESPONSE)}"
    overrides = (f"model.path={folder}", tokens, "learner.cpu_threads=2", *sizes, *options)
    return load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", overrides)


def samples(vocabulary: int, groups: int) -> list[Sample]:
    rng, made = np.random.default_rng(0), []
    for _ in range(groups):
        prompt, other = (tuple(rng.integers(0, vocabulary, n).tolist()) for n in (PROMPT, 2 * PROMPT))
        for _ in range(RESPONSES):
            made.append(
                Sample(
                    prompt_ids=prompt,
                    response_ids=tuple(rng.integers(0, vocabulary, RESPONSE).tolist()),
                    sampler_log_probs=np.full(RESPONSE, -7.0, np.float32),
                    advantages=np.zeros(RESPONSE, np.float32),
                    teacher=TeacherContext(other, np.ones(RESPONSE, np.float32)),
                )
            )
    return made


def main(shape: str, folder: str) -> None:
    import sdpo.learner.worker  # noqa: F401 - what the process holds without a model
    from benchmarks.learner import dealt, start_worker, step
    from benchmarks.memory import reset_peak, resident
    from sdpo.algorithms import build_algorithm
    from sdpo.config.model_files import load_config
    from sdpo.learner.memory import learner_memory, total
    from sdpo.learner.shapes import shapes_of

    recipe = recipe_of(shape, Path(folder))
    before = reset_peak()
    worker = start_worker(recipe)
    [batches] = dealt(recipe, samples(SHAPES[shape][0][3], 2 * GROUPS))
    assert len(batches) > 1
    step(worker, batches)  # moments and gradients are there afterwards
    reset_peak()
    step(worker, batches)
    measured = resident("VmHWM") - before
    memory = learner_memory(recipe, build_algorithm(recipe).plan, shapes_of(load_config(recipe), torch.float32))
    counted = total(memory.resident) + total(memory.update)
    print(json.dumps({"measured": measured, "counted": counted, "resident": memory.resident, "update": memory.update}))


if __name__ == "__main__":
    main(*sys.argv[1:])
