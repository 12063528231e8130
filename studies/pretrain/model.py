"""The bundled policy's architecture: a small Qwen3."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

INITIAL_STD = 0.04


def make_model(vocab_size: int, layers: int, seed: int, pad: int, eos: int) -> Qwen3ForCausalLM:
    """A freshly initialised model in fp32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        initializer_range=INITIAL_STD,
        attention_bias=False,
        pad_token_id=pad,
        eos_token_id=eos,
        bos_token_id=None,
        use_cache=True,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)
