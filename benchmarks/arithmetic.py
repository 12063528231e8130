"""Multiplications and additions of a learner step, counted from shapes; nothing is measured here.

Counted: matrix products of the decoder layers, attention over the causal half, and the output projection, which runs on
response tokens only.  A backward pass costs twice its forward pass.  Not counted: norms, activations, softmaxes, the
divergence itself, the optimiser, the moving average, padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def layer_flops(config: Any, sequences: Iterable[tuple[int, int]]) -> float:
    """One forward pass of the decoder layers of a Llama-shaped model over (prompt, response) lengths in tokens."""
    hidden, queries = config.hidden_size, config.num_attention_heads * config.head_dim
    keys_and_values = 2 * config.num_key_value_heads * config.head_dim
    per_token = 2 * hidden * (2 * queries + keys_and_values + 3 * config.intermediate_size)
    lengths = [prompt + response for prompt, response in sequences]
    # QKᵀ and PV over the causal half: 2 · 2 · L²/2 per query channel.
    return config.num_hidden_layers * sum(per_token * n + 2 * queries * n**2 for n in lengths)


def projection_flops(config: Any, sequences: Iterable[tuple[int, int]]) -> float:
    """One forward pass of the output projection, on response tokens only."""
    return 2.0 * config.hidden_size * config.vocab_size * sum(response for _, response in sequences)


def step_flops(
    config: Any,
    student: Sequence[tuple[int, int]],
    teacher: Sequence[tuple[int, int]] = (),
    checkpointing: bool = False,
) -> dict[str, float]:
    """One optimiser step: the student forward and backward (its layers forward again with checkpointing), the teacher
    forward."""
    layers, projection = layer_flops(config, student), projection_flops(config, student)
    counted = {
        "student": (4 if checkpointing else 3) * layers + 3 * projection,
        "teacher": layer_flops(config, teacher) + projection_flops(config, teacher),
    }
    return counted | {"total": sum(counted.values())}
