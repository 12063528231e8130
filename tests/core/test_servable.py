"""What vLLM has no kernels or no room for, told before it starts."""

from __future__ import annotations

import pytest
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.sections import AdapterSettings
from sdpo.errors import UserError
from sdpo.learner.adapter import adapted_layers
from sdpo.rollout.config import AdapterSlots
from sdpo.rollout.servable import check_adapter, check_servable
from tests.learner.families import family


def recipe(profile: str = "cpu", *overrides: str):
    return load_recipe(find_recipe("livecodebench", "sdpo"), profile, ("model.path=folder", *overrides))


def config_of(kind: str, **changes):
    config = family(kind, **changes)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
    return config


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("jamba", {"hidden_size": 128}, "folder cannot be sampled from on a CPU: .*selective scan.*Take a GPU"),
        ("mamba", {"hidden_size": 128}, "selective scan"),
        ("qwen3_next", {"head_dim": 32}, "in bfloat16 alone. Set model.dtype=bfloat16"),
        ("qwen3_5_text", {"head_dim": 32}, "in bfloat16 alone"),
    ],
)
def test_layers_that_a_cpu_has_no_kernels_for_are_refused_there_alone(kind, changes, says):
    config = config_of(kind, **changes)
    with pytest.raises(UserError, match=says):
        check_servable(config, recipe("cpu"))
    check_servable(config, recipe("gpu"))
    if "bfloat16" in says:
        check_servable(config, recipe("cpu", "model.dtype=bfloat16", "learner.zero_stage=2"))


@pytest.mark.parametrize(
    ("kind", "profile", "says"),
    [
        ("falcon", "gpu", "its FalconForCausalLM takes none. Leave rollout.adapter at merged"),
        ("stablelm", "gpu", "its StableLmForCausalLM takes none"),
        ("deepseek_v3", "gpu", "kv_b_proj"),
        ("qwen3_moe", "cpu", "on a CPU its Qwen3MoeForCausalLM takes none"),
        ("qwen3_5_text", "cpu", "on a CPU its Qwen3_5ForCausalLM takes none"),
    ],
)
def test_an_adapter_that_vllm_does_not_load_is_refused(kind, profile, says):
    slots = AdapterSlots(16, 2, ("kv_b_proj", "q_proj"))
    with pytest.raises(UserError, match=f"vLLM cannot load the adapter of folder: .*{says}"):
        check_adapter(config_of(kind), recipe(profile), slots)


def test_without_its_absorbed_projection_a_compressed_cache_is_no_obstacle():
    check_adapter(config_of("deepseek_v3"), recipe("gpu"), AdapterSlots(16, 2, ("o_proj",)))


@pytest.mark.parametrize("kind", ["qwen3", "phi3", "gemma3_text", "gpt_neox", "olmo3"])
def test_an_adapter_that_it_loads_is_not(kind):
    config = config_of(kind)
    check_adapter(config, recipe("gpu"), AdapterSlots(16, 2, adapted_layers(config, AdapterSettings())))
