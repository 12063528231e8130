"""Models of many architectures: each computes what plain transformers computes, or is refused before a run starts."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config

from sdpo.config.sections import ModelSettings
from sdpo.errors import UserError
from sdpo.learner import model_check
from sdpo.learner.attention import CannotPack
from sdpo.learner.logits import Transformation, measured_transformation
from sdpo.learner.model import PolicyModel, load_model
from sdpo.learner.packing import pack
from sdpo.learner.small_model import EXTENSION, WINDOW, small_config
from sdpo.training.parts import as_computed
from tests.helpers.tiny_model import make_tiny_model
from tests.learner.families import family
from tests.learner.tiny import recipe

RIGHT = ["qwen3", "qwen3_moe", "llama", "mistral", "gemma3_text", "granite", "cohere2", "deepseek_v3"]
RIGHT_SLOW = ["qwen2", "olmo2", "olmo3", "phi3", "smollm3", "cohere", "gpt_neox", "minicpm3", "gpt2"]
OFF = ("learner.packing=off", "learner.micro_batch_tokens=null")
CARRIED = r"differ by up to [\d.]+ nats, where 0.0001 is allowed: something reaches from one sequence"
# Attention and reason of those that are computed one sequence at a time.
ALONE = {
    "gemma2": ("eager", "uses softcap"),
    "jamba": ("sdpa", CARRIED),
    "nemotron": ("sdpa", "does not pass on the options of its call"),
}
ALONE_SLOW = {
    "qwen3_next": ("sdpa", CARRIED),
    "recurrent_gemma": ("sdpa", CARRIED),
    "stablelm": ("sdpa", "does not pass on the options of its call"),
    "mamba": ("eager", CARRIED),
    "bloom": ("eager", "does something that it does not say in the options of its call"),
    "falcon": ("sdpa", "cannot run with packed attention"),
    "gpt_oss": ("eager", "uses s_aux"),
}


def slow(kinds):
    return [pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


def save(config, folder):
    """A folder with weights under which parts of a model show."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model_check._randomise(model)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [*RIGHT, *slow(RIGHT_SLOW)])
def test_packed_log_probs_are_those_of_plain_transformers(kind, tmp_path):
    config = family(kind)
    model_check.check_configuration(config, longest=200)
    save(config, tmp_path)
    policy = load_model(ModelSettings(path=str(tmp_path), dtype="float32"), torch.float32).eval()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    asked = model_check.sequences(config.vocab_size)
    with torch.no_grad():
        found, wanted = model_check.policy_log_probs(policy, asked), model_check.plain_log_probs(plain, asked)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", [*ALONE, *slow(ALONE_SLOW)])
def test_a_model_that_cannot_be_packed_is_computed_one_sequence_at_a_time(kind, tmp_path):
    config, (form, reason) = family(kind), (ALONE | ALONE_SLOW)[kind]
    found = model_check.check_configuration(config, longest=200)
    assert found[:2] == ("off", form) and re.search(reason, found.reason)
    save(config, tmp_path)
    settings = ModelSettings(path=str(tmp_path), dtype="float32", attention=form)
    policy = load_model(settings, torch.float32, packs=False)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    prompts, responses = model_check.sequences(config.vocab_size)
    one = np.array([5])
    for asked in (([prompts[0]], [responses[0]]), ([one], [one])):  # the latter as what fills idle micro-batches
        with torch.no_grad():
            own, wanted = model_check.policy_log_probs(policy, asked), model_check.plain_log_probs(plain, asked)
        np.testing.assert_allclose(own.numpy(), wanted.numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="a pack of several sequences"):
        policy(pack(prompts, responses, torch.device("cpu")))


@pytest.mark.parametrize(("kind", "asked", "taken"), [
    ("qwen3", (), ("auto", "sdpa")),
    ("gemma2", (), ("off", "eager")),
    ("gemma2", OFF, ("off", "eager")),
    ("qwen3", OFF, ("off", "sdpa")),
])  # fmt: skip
def test_a_run_takes_what_its_model_needs_and_says_so(kind, asked, taken, tmp_path):
    save(family(kind), tmp_path)
    asked = recipe(tmp_path, "sdpo", *asked)
    found, note = as_computed(asked)
    assert (found.learner.packing, found.model.attention) == taken
    assert found.learner.pass_tokens == (1 if taken[0] == "off" else asked.learner.micro_batch_tokens)
    if found == asked:
        assert note is None
    else:
        assert note.startswith(
            f"{kind} is trained without packing, one sequence per pass, with the {taken[1]} attention"
        )


def test_a_loaded_model_that_must_not_be_packed_says_what_to_set():
    right, wrong = torch.zeros(3), torch.ones(3)
    model_check.check_log_probs("new", torch.float32, True, right, right, right)
    for packed, alone in ((wrong, right), (right, wrong)):
        with pytest.raises(CannotPack, match=r"nats, where 0.0001 is allowed: .* Set learner.packing=off") as caught:
            model_check.check_log_probs("new", torch.float32, True, packed, alone, right)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # it crosses processes
    with pytest.raises(UserError, match="differ by up to 1 nats.* Use another architecture"):
        model_check.check_log_probs("new", torch.float32, False, wrong, wrong, right)


@pytest.mark.parametrize("kind", ["stablelm", "nemotron"])
def test_a_loaded_model_that_cannot_be_told_of_packs_says_so(kind, tmp_path):
    save(family(kind), tmp_path)
    with pytest.raises(CannotPack, match="does not pass on the options of its call.*learner.packing=off"):
        policy = load_model(ModelSettings(path=str(tmp_path), dtype="float32"), torch.float32)
        policy(pack([np.arange(3, 9)], [np.arange(9, 14)], torch.device("cpu")))


# ------------------------------------------------------------------------------------------------ the head


@pytest.mark.parametrize(("kind", "change", "scale", "softcap"), [
    ("granite", {"logits_scaling": 8.0}, 0.125, None),
    ("granite", {"logits_scaling": 0.3}, 1 / 0.3, None),
    ("cohere", {"logit_scale": 0.0625}, 0.0625, None),
    ("gemma2", {}, 1.0, 30.0),
    ("gemma2", {"final_logit_softcapping": 200.0}, 1.0, 200.0),
    ("phi", {}, 1.0, None),  # a bias in the head
    ("qwen3", {}, 1.0, None),
])  # fmt: skip
def test_what_a_model_does_to_its_logits_is_measured(kind, change, scale, softcap):
    with torch.device("meta"):  # neither weights nor a device are needed
        model = AutoModelForCausalLM.from_config(family(kind, **change))
    head = PolicyModel(model).head
    assert head.transformation.scale == pytest.approx(scale, rel=1e-6)
    assert head.transformation.softcap == (None if softcap is None else pytest.approx(softcap, rel=1e-6))
    assert (head.bias is not None) == (kind == "phi")


def bent(bend):
    """A model that transforms its logits under a name that nobody knows."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(family("qwen3"))
    inner = model.forward

    def forward(*arguments, **options):
        output = inner(*arguments, **options)
        output.logits = bend(output.logits)
        return output

    model.forward = forward
    return model


@pytest.mark.parametrize("bend", [
    lambda z: 50 * torch.atan(z / 50),
    lambda z: 50 * torch.tanh(z / 50) + 1e-2 * z,
    lambda z: z + torch.arange(z.shape[-1]),
    lambda z: z.clamp(max=20),
    lambda z: -z,
    lambda z: z * float("nan"),
])  # fmt: skip
def test_another_transformation_of_logits_is_refused_whatever_its_name(bend):
    said = r"the best factor, \S+, leaves a relative difference of \S+, the best cap, \S+, one of \S+, where 1e-04"
    with pytest.raises(UserError, match=said):
        measured_transformation(bent(bend))


@pytest.mark.parametrize("cap", [3.0, 50.0, 1000.0])
def test_a_cap_is_found_whatever_its_name_and_together_with_a_factor(cap):
    found = measured_transformation(bent(lambda z: cap * torch.tanh(0.7 * z / cap)))
    assert found == pytest.approx((0.7, cap), rel=1e-5)


def test_a_factor_that_is_a_parameter_is_refused_since_it_would_not_be_trained():
    factor = torch.nn.Parameter(torch.tensor(2.0))
    with pytest.raises(UserError, match="would not train"):
        measured_transformation(bent(lambda z: z * factor))


# ------------------------------------------------------------------------------------------------ small models


@pytest.mark.parametrize(("kind", "changes", "layers"), [
    ("llama", {"num_hidden_layers": 32}, 1),
    ("gemma3_text", {"num_hidden_layers": 26}, 2),  # five sliding, one full, …
    ("deepseek_v3", {"num_hidden_layers": 9, "first_k_dense_replace": 3}, 2),  # a number, not a list
    ("qwen3_next", {"num_hidden_layers": 12}, 2),
    ("jamba", {"num_hidden_layers": 16, "attn_layer_period": 8, "attn_layer_offset": 4}, 5),  # the first five
])  # fmt: skip
def test_a_small_model_has_one_layer_of_each_kind(kind, changes, layers):
    small = small_config(family(kind, **changes), longest=200)
    assert small.num_hidden_layers == layers


def test_a_small_model_of_a_large_one_is_small():
    large = Qwen3Config(
        vocab_size=151_936, hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, intermediate_size=12_288, eos_token_id=151_645, bos_token_id=151_643,
    )  # fmt: skip
    small = small_config(large, longest=18_432)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(small)
    assert sum(p.numel() for p in model.parameters()) < 100e6
    assert (small.hidden_size, small.num_attention_heads, small.head_dim) == (4096, 32, 128)


def test_a_window_is_lowered_if_the_run_can_pass_it():
    config = family("mistral", sliding_window=64)
    assert small_config(config, longest=200).sliding_window == WINDOW
    assert small_config(config, longest=64).sliding_window == 64


def test_a_position_encoding_that_depends_on_the_row_is_refused_only_if_the_run_is_long_enough():
    factors = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64}
    config = family(
        "phi3",
        rope_parameters=factors | {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        original_max_position_embeddings=64,
    )
    model_check.check_configuration(config, longest=64)
    with pytest.raises(UserError, match="a position encoding that depends on the row's length"):
        model_check.check_configuration(config, longest=200)
    assert EXTENSION > 11  # the check's shortest sequences lie below, its longest above


# ------------------------------------------------------------------------------------------------ generation


@pytest.mark.parametrize("said", [
    {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [1, 5]},
    {"top_k": 20, "eos_token_id": [1, 5]},
    {"do_sample": False, "temperature": 0.7, "eos_token_id": 5},
    {"do_sample": True, "temperature": 0.7, "eos_token_id": [5]},
    {"eos_token_id": [1, 5], "pad_token_id": 0, "num_beams": 1, "length_penalty": 2.0},
    None,
])  # fmt: skip
def test_what_a_folder_says_of_generation_is_exported(said, tmp_path):
    from sdpo.learner import export

    config = family("qwen3", eos_token_id=[1, 7])
    folder = save(config, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    if said is not None:
        (folder / "generation_config.json").write_text(json.dumps(said))
    generation = GenerationConfig.from_pretrained(folder) if said is not None else None
    model_check.check_configuration(config, longest=200, generation=generation)
    policy = load_model(ModelSettings(path=str(folder), dtype="float32"), torch.float32)
    state = {name: tensor for tensors in export.named_state(policy.model) for name, tensor in tensors}
    export.write(policy.model, state, tmp_path / "policy")
    written = json.loads((tmp_path / "policy" / "generation_config.json").read_text())
    for name, value in (said or {"eos_token_id": [1, 7]}).items():
        if value != getattr(GenerationConfig(), name):
            assert written[name] == value
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "policy").generation_config.eos_token_id is not None


def test_an_exported_policy_keeps_persistent_buffers(tmp_path):
    from sdpo.learner import export

    folder = save(family("deepseek_v3"), tmp_path / "model")
    policy = load_model(ModelSettings(path=str(folder), dtype="float32"), torch.float32)
    state = {name: tensor for tensors in export.named_state(policy.model) for name, tensor in tensors}
    assert any(name.endswith("e_score_correction_bias") for name in state)
    export.write(policy.model, state, tmp_path / "policy")
    models = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("model", "policy"))
    asked = model_check.sequences(128)
    with torch.no_grad():
        before, after = (model_check.plain_log_probs(model, asked) for model in models)
    torch.testing.assert_close(before, after)


def test_what_is_published_has_the_names_of_a_checkpoint(tmp_path):
    from safetensors import safe_open

    from sdpo.learner import export

    folder = save(family("deepseek_v3"), tmp_path)
    policy = load_model(ModelSettings(path=str(folder), dtype="float32"), torch.float32)
    sent = dict(export.checkpoint_tensors(policy.model))
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(sent) == set(file.keys())
        for name, tensor in sent.items():
            torch.testing.assert_close(tensor, file.get_tensor(name))


# ------------------------------------------------------------------------------------------------ the loaded learner


@pytest.mark.parametrize("stage", [0, 3])
def test_a_learner_whose_losses_see_other_logits_does_not_start(stage, model, start, monkeypatch):
    monkeypatch.setattr("sdpo.learner.model.measured_transformation", lambda model: Transformation(1.5))
    with pytest.raises(UserError, match=r"differ by up to \S+ nats, where 0.001 is allowed"):
        start(recipe(model, "grpo", f"learner.zero_stage={stage}"))


def test_the_probe_is_at_temperature_one(model, start):
    worker = start(recipe(model, "grpo", "rollout.temperature=0.7"))
    kind, prompt, response, found = worker.passes.probe(32)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        wanted = model_check.plain_log_probs(plain, ([np.array(prompt)], [np.array(response)]))
    assert (kind, len(prompt) + len(response)) == ("qwen3", 32)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    weights = make_tiny_model(tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"incomplete: 1 tensors .* \(model.layers.1.mlp.down_proj.weight, …\)"):
        load_model(ModelSettings(path=str(tmp_path), dtype="float32"), torch.float32)
