"""A small model as somebody may bring it: random weights, one token per byte, a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tests.helpers.prompts import byte_tokenizer
from tests.helpers.tiny_model import make_tiny_model


def make_own_model(path: Path, context: int = 4096, **config: Any) -> Path:
    """config: values of config.json that are other than the weights', for what is looked at before these are read."""
    tokenizer = byte_tokenizer()
    make_tiny_model(path, vocab=len(tokenizer), context=context)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(path)
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": tokenizer.eos_token_id} | config))
    AutoConfig.from_pretrained(path)
    return path
