"""What holds for every policy that is bundled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer


def check_complete_and_small(policy: Path) -> dict[str, Any]:
    """Returns how it was made (pretraining.json)."""
    files = {path.name: path.stat().st_size for path in policy.iterdir()}
    assert set(files) >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"}
    assert sum(files.values()) <= 8 * 2**20
    record = json.loads((policy / "pretraining.json").read_text())
    assert len(record["commit"]) == 40 and record["command"]
    return record


def check_loads_with_its_tokenizer(policy: Path) -> Any:
    """Returns the configuration."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)
    assert model.config.model_type == "qwen3" and model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == model.generation_config.eos_token_id
    return model.config
