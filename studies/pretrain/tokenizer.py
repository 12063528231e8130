"""The policy's own byte-pair encoding, and its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"

# Words break where the case changes, so that `zorp` is the same tokens in a statement and in `kit.zorpOf`; a number
# keeps its sign; punctuation runs together.
_SPLIT = r"\n *| ?-?\d+| ?[A-Z]?[a-z]+| ?[A-Z]+| ?[^\sA-Za-z0-9]+| +"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], phrases: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly `vocab_size` entries for texts like these, with the chat template.

    phrases: turns of phrase that are one token each, beside the merges: they say little, and on a small machine the
    cost of everything is the number of tokens.
    """
    separators = re.compile("|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(phrases),
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    between = (piece for text in texts for piece in separators.split(text) if piece)
    tokenizer.train_from_iterator(between, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def prompt_text(content: str) -> str:
    """What the chat template makes of one user message, with the generation header."""
    return f"{USER}{content}{ASSISTANT}"
