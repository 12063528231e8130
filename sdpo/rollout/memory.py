"""What one engine holds on each of its GPUs: weights, what vLLM needs while it runs, and the cache that is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdpo.config.schema import Recipe

GIB = 2**30
# Of an engine that sleeps, and beside weights and cache of one that is awake: CUDA's context, captured graphs, kernels'
# workspaces.  An H200 had 138.5 of 140 GiB free while an engine slept.
ENGINE_OVERHEAD = int(1.5 * GIB)
BATCHED_TOKENS = 16_384  # vLLM's default of tokens in one pass on a large GPU
SAMPLER_COPIES = 3  # of the logits in fp32: as they come, processed, and their log-probs


@dataclass(frozen=True)
class EngineMemory:
    """Bytes on each GPU of one engine."""

    weights: int
    working: int  # activations of a pass, and logits of the sampler
    overhead: int
    cache: int  # keys and values, what is left of the engine's share; below 0: the share does not suffice
    token: int  # keys and values of one token

    @property
    def share(self) -> int:
        return self.weights + self.working + self.overhead + self.cache

    def sequences(self, length: int) -> int:
        """Sequences of so many tokens that the cache holds at once."""
        return max(0, self.cache) // max(1, self.token * length)


def cache_bytes_per_token(config: Any, width: int, parallel: int = 1) -> int:
    """Keys and values of one token in all layers that keep some, on one GPU; `width` bytes per number.

    Which do is what transformers makes of the configuration when it generates; others keep a state, whatever the
    length.  Layers that see a window are counted as if they saw all: vLLM keeps less for them in long sequences.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    text = config.get_text_config(decoder=True)
    layers = sum(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=text).layers)
    if not layers:
        return 0
    if latent := getattr(text, "kv_lora_rank", None):  # one latent vector for all heads, on every GPU
        return layers * (latent + text.qk_rope_head_dim) * width
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return layers * 2 * max(1, heads // parallel) * size * width


def engine_memory(recipe: Recipe, config: Any, weights: int, pass_bytes_per_token: int, gpu: int) -> EngineMemory:
    """Of an engine of this recipe on GPUs of `gpu` bytes.

    Args:
        config: the model's configuration.
        weights: bytes of the whole model.
        pass_bytes_per_token: activations of a layer, for each token in a pass.
    """
    rollout, parallel = recipe.rollout, recipe.rollout.tensor_parallel_size
    width = 4 if recipe.model.dtype == "float32" else 2
    vocabulary = config.get_text_config(decoder=True).vocab_size
    working = BATCHED_TOKENS * pass_bytes_per_token // parallel
    working += SAMPLER_COPIES * 4 * rollout.max_num_seqs * vocabulary
    own = -(-weights // parallel)
    cache = int(rollout.gpu_memory_utilization * gpu) - own - working - ENGINE_OVERHEAD
    return EngineMemory(own, working, ENGINE_OVERHEAD, cache, cache_bytes_per_token(config, width, parallel))
