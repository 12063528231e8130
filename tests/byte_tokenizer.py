"""A tokenizer of bytes whose turn tokens are special, but not among the named ones.

That is what Llama 3 and Gemma folders look like: only bos, eos and pad are named in tokenizer_config.json; the tokens
that open and close turns are special in tokenizer.json alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TOKENS = ("<|eos|>", "<|start|>", "<|eot|>")


def byte_tokenizer(
    eos: str | None = "<|eos|>",
    template: str = TEMPLATE,
    more: Sequence[AddedToken] = (),
    normalizer: Any = None,
    tokens: Sequence[str] = TOKENS,
    normalized: bool = False,
    **config: Any,
) -> Any:
    """more: further added tokens, special where they say so.  normalized: tokens are found in normalised text."""
    from transformers import AutoTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=normalized) for t in tokens])
    for token in more:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        named = {"eos_token": eos} if eos else {}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template} | named | config
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder)
