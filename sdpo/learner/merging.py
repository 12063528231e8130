"""A base and an adapter as one model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdpo.learner import export
from sdpo.learner.adapter import NAME, read_adapter


def merged_model(adapter: Path, base: str, dtype: str, out: Path) -> None:
    """Write into `out` the model `base` in `dtype`, with the weights that engines get of this adapter, and a tokenizer.

    Raises UserError if the adapter does not fit.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype), use_safetensors=True)
    inject_adapter_in_model(PeftConfig.from_pretrained(str(adapter)), model, NAME)
    model.to(getattr(torch, dtype))  # PEFT keeps a fresh adapter in fp32, where training rounds it
    read_adapter(model, adapter)
    state = {name: tensor for tensors in export.named_state(model) for name, tensor in tensors}
    export.write(model, state, out)
    AutoTokenizer.from_pretrained(str(adapter)).save_pretrained(str(out))
