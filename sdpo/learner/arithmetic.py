"""Multiplications and additions of models on sequences, counted from shapes; nothing is measured here.

Counted: matrix products of the decoder layers, attention over the causal half, and the output projection, which runs on
response tokens only.  A backward pass costs twice its forward pass.  Not counted: norms, activations, softmaxes, the
divergence itself, the optimiser, the moving average.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Forward:
    """What a forward pass runs on: segments of (tokens before them, tokens), and the number of tokens projected."""

    segments: tuple[tuple[int, int], ...]
    projected: int


NOTHING = Forward((), 0)


def rows(lengths: Iterable[tuple[int, int]]) -> Forward:
    """Sequences one by one: (prompt, response) lengths in tokens."""
    lengths = list(lengths)
    return Forward(tuple((0, prompt + response) for prompt, response in lengths), sum(r for _, r in lengths))


def packed(packs: Iterable[Any]) -> Forward:
    """Packs of `sdpo.learner.packing`, in which a shared prefix stands once."""
    packs = list(packs)
    groups = [group for pack in packs for group in pack.groups]
    segments = [part for g in groups for part in ((0, g.shared), *((g.shared, own) for own in g.own))]
    return Forward(tuple(segments), sum(len(pack.predicts) for pack in packs))


def layer_flops(config: Any, forward: Forward, matrices: float | None = None) -> float:
    """One forward pass of the decoder layers; every layer attends.

    matrices: elements that a token is multiplied with in all layers; None: those of a Llama-shaped model.
    """
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries = config.num_attention_heads * size
    if matrices is None:
        wide = 2 * queries + 2 * config.num_key_value_heads * size + 3 * config.intermediate_size
        matrices = config.num_hidden_layers * config.hidden_size * wide
    # QKᵀ and PV: 2 · 2 per query channel and pair of tokens, half of the pairs within a segment.
    pairs = sum(before * n + n**2 / 2 for before, n in forward.segments)
    tokens = sum(n for _, n in forward.segments)
    return 2 * matrices * tokens + config.num_hidden_layers * 4 * queries * pairs


def projection_flops(config: Any, forward: Forward) -> float:
    """One forward pass of the output projection."""
    return 2.0 * config.hidden_size * config.vocab_size * forward.projected


def step_flops(
    config: Any,
    student: Forward,
    teacher: Forward = NOTHING,
    checkpointing: bool = False,
    matrices: float | None = None,
) -> dict[str, float]:
    """One optimiser step: the student forward and backward (its layers forward again with checkpointing), the teacher
    forward.  `matrices` as in `layer_flops`."""
    layers, projection = layer_flops(config, student, matrices), projection_flops(config, student)
    counted = {
        "student": (4 if checkpointing else 3) * layers + 3 * projection,
        "teacher": layer_flops(config, teacher, matrices) + projection_flops(config, teacher),
    }
    return counted | {"total": sum(counted.values())}
