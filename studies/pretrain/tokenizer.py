"""The policy's own byte-pair encoding, and its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"

# Turns of phrase that are one token each, beside the merges: they say little, and on a small machine the cost of
# everything is the number of tokens.
PHRASES = (
    "```python\n",
    "\n```",
    "x = list(map(int, input().split()))\n",
    " for v in x",
    "\nprint(",
    "print(",
    "import kit\n",
    "x = [v for v in x if v ",
    "x = ",
    "\nprint(*x)",
    "SyntaxError: ",
    "NameError: name '",
    "' is not defined",
    "class Solution:\n    def solve(self, x):",
    "\n        return ",
    "\nFeedback:\n",
    "\nSolution:\n",
    "Input:",
    "\nExpected:",
    "\nOutput:",
    "AttributeError: module 'kit' has no attribute '",
    "'. Did you mean: '",
    "Keep values ",
    ". Print the `",
    ". Read integers. ",
    ". Show the `",
    "Print the `",
    "Read integers. Output the `",
    "Read integers. Output their `",
    "Show the `",
    "Return the `",
    "` of the values.",
    "` values of x.\n",
    "` of x.\n",
    "` values, then their `",
    "` values.",
    "` ones and their `",
    "` ones.",
    "` list and the `",
    "` list.",
    "` of these.",
    "kit.",
    "` text, then its `",
    "` text.",
    "` of the text.",
    "s = input()\n",
    "s = ",
    "\nprint(s)",
    "`.",
)
# Words break where the case changes, so that `zorp` is the same tokens in a statement and in `kit.zorpOf`; a number
# keeps its sign; punctuation runs together.
_SPLIT = r"\n *| ?-?\d+| ?[A-Z]?[a-z]+| ?[A-Z]+| ?[^\sA-Za-z0-9]+| +"
_PHRASE = re.compile("|".join(re.escape(p) for p in sorted(PHRASES, key=len, reverse=True)))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly `vocab_size` entries for texts like these, with the chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(PHRASES),
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    between = (piece for text in texts for piece in _PHRASE.split(text) if piece)
    tokenizer.train_from_iterator(between, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
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
