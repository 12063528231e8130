"""A tokenizer whose tokens can be counted by hand, and prompts built with it."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from sdpo.config.sections import ContextSettings
from sdpo.prompts.context import ContextBuilder

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
HEADER = "<|im_start|>assistant\n"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and two special ones: every budget can be counted by hand."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = CHAT
    return made


def builder(tokenizer: Any, thinking: bool | None = None, **settings: Any) -> ContextBuilder:
    return ContextBuilder(tokenizer, ContextSettings(**settings), thinking)
