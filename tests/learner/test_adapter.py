"""LoRA: only the adapter learns, its teachers are other adapters on the same base, and merged it is a plain model."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sdpo.config.sections import AdapterSettings
from sdpo.errors import UserError
from sdpo.learner.adapter import adapted_layers, add_adapter, merged, write_adapter
from sdpo.training import inputs
from sdpo.training.adapter_base import merge, name_base
from tests.helpers.prompts import byte_tokenizer
from tests.learner.families import family
from tests.learner.tiny import dealt, make_model, named_weights, recipe, reference_log_probs, samples

LORA = ("model.adapter={rank: 4, alpha: 8}", "learner.lr=1e-2")
FIXED = ("teacher.rate=null", "teacher.clock=null")
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
SHARDED = [0, pytest.param(3, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def untouched(model):
    """Plain transformers, in float64; made before a learner is, which may load models in shards."""
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64, attn_implementation="eager").eval()


def plain(untouched, worker):
    """The same with the weights that engines get."""
    made = copy.deepcopy(untouched)
    found = made.load_state_dict({n: w.double() for n, w in named_weights(worker).items()}, strict=False)
    assert not found.unexpected_keys and set(found.missing_keys) <= {"lm_head.weight"}
    return made


def base(worker) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in worker.student.named_parameters() if not p.requires_grad}


def log_probs(model, sample, prompt=None) -> torch.Tensor:
    with torch.no_grad():
        return reference_log_probs(model, sample, prompt=prompt)


def test_a_fresh_adapter_adds_nothing_and_the_same_seed_draws_the_same(model, start):
    worker = start(recipe(model, "sdpo", *LORA))
    stored = load_file(model / "model.safetensors")
    for name, weight in named_weights(worker).items():
        assert torch.equal(weight, stored[name]), name
    trained = {n for n, _ in worker.student.trained()}
    assert len(trained) == 2 * 2 * 7 and all(".lora_" in name for name in trained)
    first = {n: p.clone() for n, p in worker.student.trained()}
    again = start(recipe(model, "sdpo", *LORA))
    assert all(torch.equal(p, first[n]) for n, p in again.student.trained())
    other = start(recipe(model, "sdpo", *LORA, "seed=1"))
    assert not all(torch.equal(p, first[n]) for n, p in other.student.trained())


@pytest.mark.parametrize("stage", SHARDED)
def test_merged_weights_give_the_learners_log_probs_and_the_base_stays(model, untouched, start, stage):
    settings = recipe(model, "sdpo", *LORA, f"learner.zero_stage={stage}")
    worker, batch = start(settings), samples(8)
    [micro_batches] = dealt(settings, batch)
    before = base(worker) if stage == 0 else None
    for _ in range(3):
        worker.update(micro_batches)
    own = [row for rows in worker.passes.log_probs([[r] for rows in micro_batches for r in rows]) for row in rows]
    asked = [row for rows in micro_batches for row in rows]
    whole, moved = plain(untouched, worker), 0.0
    for row, found in zip(asked, own, strict=True):
        expected = log_probs(whole, row).gather(1, torch.tensor(row.response_ids)[:, None].long())[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        was = log_probs(untouched, row).gather(1, torch.tensor(row.response_ids)[:, None].long())[:, 0]
        moved = max(moved, float((was - expected).abs().max()))
    assert moved > 1e-2
    if before is not None:
        assert all(torch.equal(p, before[n]) for n, p in base(worker).items())


@pytest.mark.parametrize("stage", SHARDED)
def test_a_frozen_teacher_and_a_reference_are_the_adapter_as_it_began(model, untouched, start, stage):
    frozen = ("teacher.kind=frozen", *FIXED, "reference={coefficient: 0.2}")
    settings = recipe(model, "sdpo", *LORA, *frozen, f"learner.zero_stage={stage}")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8, reference=True))
    for _ in range(2):
        worker.update(micro_batches)
    rows = micro_batches[0]
    reference = worker.passes.score(rows, worker.reference.hidden, worker.reference.policy)
    expected = [log_probs(untouched, r).gather(1, torch.tensor(r.response_ids)[:, None].long())[:, 0] for r in rows]
    torch.testing.assert_close(reference.double(), torch.cat(expected), atol=1e-5, rtol=0)
    with worker.passes._teacher_logits(rows) as teacher:
        ends = np.cumsum([len(r.response_ids) for r in rows])
        for row, end in zip(rows, ends, strict=True):
            if row.teacher_prompt_ids is not None:
                found = teacher(slice(end - len(row.response_ids), end)).log_softmax(-1)
                wanted = log_probs(untouched, row, prompt=row.teacher_prompt_ids)
                torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("stage", SHARDED)
def test_the_average_is_an_adapter_in_closed_form(model, start, stage):
    settings = recipe(
        model,
        "sdpo",
        *LORA,
        "teacher.rate=0.25",
        "teacher.clock=update",
        "learner.updates_per_batch=2",
        f"learner.zero_stage={stage}",
    )
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    own = dict(worker.student.trained())
    whole = (lambda p: p.ds_tensor) if stage == 3 else (lambda p: p)
    expected = {n: whole(p).detach().clone() for n, p in own.items()}
    assert worker.teacher.average.average.keys() == expected.keys()
    for _ in range(3):
        worker.update(micro_batches)
        expected = {n: 0.75 * expected[n] + 0.25 * whole(p).detach() for n, p in own.items()}
    for name, average in worker.teacher.average.average.items():
        torch.testing.assert_close(average, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["live", "frozen", "ema", "trust_region"])
def test_identical_contexts_give_no_loss_and_no_gradient(model, start, kind):
    off = ["teacher.rate=null"] * (kind in ("live", "frozen")) + ["teacher.clock=null"] * (kind != "ema")
    settings = recipe(model, "sdpo", *LORA, f"teacher.kind={kind}", *off)
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(6, same_context=True))
    loss = sum(worker.passes.loss(rows)[0].item() for rows in micro_batches)
    assert abs(loss) < 1e-6


def test_only_the_adapter_gets_gradients(model, start):
    settings = recipe(model, "sdpo", *LORA, "learner.gradient_checkpointing=true")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    for rows in micro_batches:
        worker.engine.backward(worker.passes.loss(rows)[0])
    for name, parameter in worker.student.named_parameters():
        assert (parameter.grad is not None) == (".lora_" in name), name


@pytest.mark.parametrize("stage", SHARDED)
def test_peft_and_we_read_what_a_checkpoint_holds(model, untouched, start, tmp_path, stage):
    settings = recipe(model, "sdpo", *LORA, f"learner.zero_stage={stage}")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    for _ in range(2):
        worker.update(micro_batches)
    records = worker.checkpointing.export(str(tmp_path / "policy"))
    assert set(records) == {"policy/adapter_config.json", "policy/adapter_model.safetensors"}
    merged_model = plain(untouched, worker)
    theirs = PeftModel.from_pretrained(copy.deepcopy(untouched), tmp_path / "policy").eval()
    assert theirs.peft_config["default"].base_model_name_or_path == str(model)
    for row in micro_batches[0]:
        torch.testing.assert_close(log_probs(theirs, row), log_probs(merged_model, row), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_base_and_adapter_merge_into_what_engines_get_and_another_base_is_refused(start, tmp_path, dtype):
    base, run, policy = make_model(tmp_path / "base"), tmp_path / "run", tmp_path / "run" / "policy"
    byte_tokenizer().save_pretrained(policy)
    settings = recipe(base, "sdpo", *LORA, f"model.dtype={dtype}", "learner.zero_stage=2")
    worker = start(settings)
    [micro_batches] = dealt(settings, samples(8))
    worker.update(micro_batches)
    worker.checkpointing.export(str(policy))
    noted = {f"model/{name}": found for name, found in inputs.model_files(str(base)).items()}
    (run / inputs.NAME).write_text(json.dumps(noted))
    name_base(policy, settings.model, run)
    merge(policy, tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    for name, weight in named_weights(worker).items():
        assert torch.equal(found[name], weight), name
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    other = load_file(base / "model.safetensors")
    save_file({n: t + 1 for n, t in other.items()}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors is another one now.*Bring back the model"):
        merge(policy, tmp_path / "again")


@pytest.mark.parametrize("targets", ["[nothing_of_this_name]", "[embed_tokens]", "[lm_head]"])
def test_targets_that_are_no_linear_layers_of_the_body_are_refused(model, start, targets):
    with pytest.raises(UserError, match="targets"):
        start(recipe(model, "sdpo", f"model.adapter={{targets: {targets}}}"))


@pytest.mark.parametrize(("kind", "wanted"), [
    ("qwen3_moe", ATTENTION),
    ("gpt_oss", ATTENTION),
    # the names of its dense layers and shared experts are those of the experts
    ("deepseek_v3", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}),
    ("qwen3_next", ATTENTION | {"in_proj_qkvz", "in_proj_ba", "out_proj", "shared_expert_gate"}),
    ("qwen3", ATTENTION | {"gate_proj", "up_proj", "down_proj"}),
])  # fmt: skip
def test_all_linear_leaves_experts_out_that_are_one_tensor(kind, wanted):
    assert set(adapted_layers(family(kind), AdapterSettings())) == wanted
    with pytest.raises(UserError, match="is no linear layer of the model's body|cannot be made"):
        adapted_layers(family("qwen3_moe"), AdapterSettings(targets=("gate_proj", "up_proj", "down_proj")))


def test_an_adapter_beside_experts_is_merged_and_read_as_by_peft(tmp_path):
    """Qwen3 MoE: the adapter is in the attention, and the experts stay as they are."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family("qwen3_moe"), dtype=torch.float32).eval()
    model.save_pretrained(tmp_path / "base")
    add_adapter(model, AdapterSettings(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    ids = torch.arange(3, 40)[None]
    own = model(input_ids=ids).logits
    (tmp_path / "adapter").mkdir()
    state = {name: p.detach() for name, p in model.named_parameters() if ".lora_" in name}
    write_adapter(model, state, str(tmp_path / "base"), tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert (own - plain(input_ids=ids).logits).abs().max() > 1e-2
    read = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    torch.testing.assert_close(read(input_ids=ids).logits, own, rtol=1e-5, atol=1e-5)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    again.load_state_dict(dict(merged(model, list(model.state_dict().items()))))
    torch.testing.assert_close(again(input_ids=ids).logits, own, rtol=1e-5, atol=1e-5)
