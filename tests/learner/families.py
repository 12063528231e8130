"""Small configurations of many architectures, with the sizes of all and what each one needs of its own."""

from __future__ import annotations

from transformers import CONFIG_MAPPING, PretrainedConfig

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
_OWN = {
    "deepseek_v3": _LATENT
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    | {"first_k_dense_replace": 2},
    "falcon": {"multi_query": True},
    "gemma2": {"head_dim": 8},
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
    "qwen3_moe": _EXPERTS | {"head_dim": 8},
    "qwen3_next": _EXPERTS
    | {
        "head_dim": 8,
        "shared_expert_intermediate_size": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "recurrent_gemma": {"head_dim": 8, "lru_width": 32},
}


def family(kind: str, **changes) -> PretrainedConfig:
    return CONFIG_MAPPING[kind](**(_SIZES | _OWN.get(kind, {}) | changes))
