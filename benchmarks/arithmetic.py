"""Multiplications and additions of a learner step, counted from shapes; nothing is measured here.

Counted: matrix products of the decoder layers, attention over the causal half, and the output projection, which runs on
response tokens only.  A backward pass costs twice its forward pass.  Not counted: norms, activations, softmaxes, the
divergence itself, the optimiser, the moving average, padding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def forward_flops(config: Any, sequences: Iterable[tuple[int, int]]) -> float:
    """One forward pass over (prompt tokens, response tokens) sequences of a Llama-shaped model (`transformers` config)."""
    hidden, layers, vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size
    queries = config.num_attention_heads * config.head_dim
    keys_and_values = 2 * config.num_key_value_heads * config.head_dim
    per_token = 2 * hidden * (2 * queries + keys_and_values + 3 * config.intermediate_size)
    total = 0.0
    for prompt, response in sequences:
        length = prompt + response
        total += layers * (per_token * length + 2 * queries * length**2)  # QKᵀ and PV: 2 · 2 · L²/2 each
        total += 2 * hidden * vocabulary * response
    return total


def step_flops(
    config: Any,
    student: Iterable[tuple[int, int]],
    teacher: Iterable[tuple[int, int]] = (),
    checkpointing: bool = False,
) -> dict[str, float]:
    """One optimiser step: the student forward and backward (and forward again with checkpointing), the teacher forward."""
    passes = 4 if checkpointing else 3
    counted = {"student": passes * forward_flops(config, student), "teacher": forward_flops(config, teacher)}
    return counted | {"total": sum(counted.values())}
