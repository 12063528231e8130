"""Small configurations of many architectures, and how the learner computes each: the table of docs/families.md.

`python -m tests.learner.families` measures them all and writes the table anew.
"""

from __future__ import annotations

import re

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig

from sdpo.config.paths import PROJECT
from sdpo.errors import UserError
from sdpo.learner import attention, model_check
from sdpo.learner.packing import pack
from sdpo.learner.small_model import small_config
from sdpo.losses.vocabulary import vocabulary_pass

FAMILIES = {
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3 MoE",
    "qwen2": "Qwen2.5",
    "llama": "Llama 3",
    "mistral": "Mistral, sliding window",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "phi3": "Phi-3, Phi-4",
    "phi": "Phi-2",
    "smollm3": "SmolLM3",
    "granite": "Granite",
    "cohere": "Command R",
    "cohere2": "Command R7B",
    "falcon": "Falcon",
    "gpt_neox": "GPT-NeoX, Pythia",
    "gpt_oss": "gpt-oss",
    "deepseek_v3": "DeepSeek-V3",
    "qwen3_next": "Qwen3-Next",
    "qwen3_5_text": "Qwen3.5",
    "jamba": "Jamba",
    "mamba": "Mamba",
    "stablelm": "StableLM",
    "bloom": "BLOOM",
}

_SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_LINEAR = {
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_OWN = {
    "deepseek_v3": _LATENT
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    | {"first_k_dense_replace": 2},
    "falcon": {"multi_query": True},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 64, "num_hidden_layers": 7},
    "gpt_oss": {"head_dim": 8},
    "granite": {
        "logits_scaling": 8.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.3,
        "embedding_multiplier": 6.0,
    },
    "jamba": {
        "num_experts": 4,
        "mamba_d_state": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "mamba": {"state_size": 8},
    "minicpm3": _LATENT,
    "mistral": {"sliding_window": 64},
    "qwen3": {"head_dim": 8},
    "qwen3_5_text": _LINEAR,
    "qwen3_moe": _EXPERTS | {"head_dim": 8},
    "qwen3_next": _EXPERTS | _LINEAR | {"shared_expert_intermediate_size": 16},
    "recurrent_gemma": {"head_dim": 8, "lru_width": 32},
}


def family(kind: str, **changes) -> PretrainedConfig:
    return CONFIG_MAPPING[kind](**(_SIZES | _OWN.get(kind, {}) | changes))


# ------------------------------------------------------------------------------------------------ the table

PAGE = PROJECT / "docs" / "families.md"
BEGIN, END = "<!-- families -->\n", "<!-- end -->"
HEAD = """| Family | `model_type` | Computed | Log-probs | Gradients | Why not packed |
| :-- | :-- | :-- | --: | --: | :-- |
"""
LONGEST = 200  # tokens of a run's longest sequence: every window and every change of a position encoding lies below


def row(kind: str) -> tuple[str, float]:
    """The table's line of a family, and the larger one of its differences."""
    config = small_config(family(kind), LONGEST)
    try:
        found = model_check.check_configuration(config, longest=LONGEST)
    except UserError as error:
        return _line(kind, "refused", "–", "–", _reason(str(error))), 0.0
    name = attention.register(found.attention) if found.packing == "auto" else found.attention
    log_probs, gradients = differences(config, name)
    how = "packed" if found.packing == "auto" else f"one by one, {found.attention}"
    line = _line(kind, how, f"{log_probs:.0e}", f"{gradients:.0e}", _reason(found.reason or "–"))
    return line, max(log_probs, gradients)


def _line(kind: str, *cells: str) -> str:
    return f"| {' | '.join((FAMILIES[kind], f'`{kind}`', *cells))} |"


def _reason(said: str) -> str:
    """Without the numbers of this machine."""
    return re.sub(r".* is allowed: ", "", said)


def differences(config: PretrainedConfig, name: str) -> tuple[float, float]:
    """Of the learner's model with this attention from plain transformers, which computes one sequence at a time and all
    logits: the largest of log-probs in nats, and the largest of a parameter's gradient relative to its norm, or to a
    hundredth of the largest norm where it is smaller than that (some are 0 but for rounding)."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        model_check._randomise(plain)
    asked = model_check.sequences(config.get_text_config(decoder=True).vocab_size)
    wanted = model_check.plain_log_probs(plain, asked)
    weights = torch.randn(len(wanted))
    (wanted * weights).sum().backward()
    policy = model_check.counterpart(config, name, plain)
    packs = [asked] if policy.packs else [([p], [r]) for p, r in zip(*asked, strict=True)]
    found, own = [], iter(weights.split([sum(map(len, responses)) for _, responses in packs]))
    for prompts, responses in packs:
        tokens, share = torch.cat([torch.from_numpy(r) for r in responses]), next(own)

        def loss(logits, rows, tokens=tokens, share=share):
            log_probs = vocabulary_pass(logits, tokens[rows], triton=False).log_probs
            return (log_probs * share[rows]).sum(), {"found": log_probs}

        total, outputs = policy(pack(prompts, responses, tokens.device), loss, chunk_tokens=11)
        total.backward()
        found.append(outputs["found"])
    theirs = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    least = 0.01 * max(gradient.norm() for gradient in theirs.values())
    gaps = [
        (policy.model.get_parameter(name).grad - gradient).norm() / gradient.norm().clamp(min=least)
        for name, gradient in theirs.items()
    ]
    return float((torch.cat(found) - wanted.detach()).abs().max()), float(max(gaps))


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    lines = []
    for kind in FAMILIES:
        lines.append(row(kind)[0])
        print(lines[-1], flush=True)
    PAGE.write_text(before + BEGIN + HEAD + "\n".join(lines) + "\n" + END + rest.partition(END)[2])
