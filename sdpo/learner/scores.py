"""Attention that makes the scores of all tokens against all others at once, refused where they cannot fit."""

from __future__ import annotations

from transformers import PretrainedConfig

from sdpo.config.model_files import longest_sequence
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.memory import longest_pack

GIB = 2**30
_SOFTMAX = 4  # bytes of a score in the softmax, which is computed in fp32


def check_scores(recipe: Recipe, config: PretrainedConfig, memory: int) -> None:
    """UserError where the scores of one layer, and their softmax, are larger than the device's memory, in bytes.

    recipe  with `learner.packing` and `model.attention` as its model is computed
    """
    tokens = max(longest_pack(recipe), longest_sequence(recipe))
    size = score_bytes(recipe, config, tokens)
    if size > memory:
        raise UserError(
            f"The learner's attention ({recipe.model.attention}"
            f"{'' if recipe.learner.packing == 'auto' else ', one sequence per pass'}) makes the scores of all tokens "
            f"of a pass at once: {size / GIB:,.1f} GiB in each layer for {tokens:,} tokens, and the device has "
            f"{memory / GIB:,.1f} GiB. {_remedy(recipe)}"
        )


def score_bytes(recipe: Recipe, config: PretrainedConfig, tokens: int) -> int:
    """Of one layer on a pass of so many tokens, before its backward pass; 0 where a fused kernel computes them."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", 0)  # models without attention have none
    width = 4 if recipe.model.dtype == "float32" else 2
    # In fp32 no fused kernel of CUDA takes heads that share keys, and transformers hands them over as they are.
    shared = getattr(text, "num_key_value_heads", None) not in (None, heads)
    unfused = recipe.learner.packing == "off" and recipe.profile == "gpu" and width == 4 and shared
    if recipe.model.attention != "eager" and not unfused:
        return 0
    return heads * tokens**2 * (width + _SOFTMAX)


def _remedy(recipe: Recipe) -> str:
    shorter = "lower rollout.max_response_tokens and context.max_reprompt_tokens"
    if recipe.learner.packing == "auto":
        return f"Set model.attention=sdpa, or lower learner.micro_batch_tokens, or {shorter}."
    other = "take profile gpu, which has flex_attention" if recipe.profile == "cpu" else "set learner.packing=auto"
    return f"{shorter[0].upper()}{shorter[1:]}, or {other}."
