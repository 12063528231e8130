"""The dry run keeps the gpu recipes right: data in the official format, a real configuration, nothing started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sandbox import TestCase
from sdpo.cli import main
from sdpo.cli.plan import make_plan
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.envs.code import LCBRow, write_rows
from sdpo.errors import UserError
from tests.learner.families import family

QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 12288, "max_position_embeddings": 40960, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "Qwen3-8B"
    shutil.copytree(PROJECT / "policies" / "minicode", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "config.json").write_text(json.dumps(QWEN3_8B))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    def row(number: int, date: str) -> LCBRow:
        tests = tuple(TestCase(f"{number} {i}\n", f"{number + i}\n") for i in range(4))
        return LCBRow(
            question_id=f"abc{number}_a", title="Sum", content=f"Print the sum of two numbers ({number}).",
            public_tests=tests[:1], private_tests=tests, contest_date=date, difficulty="easy", platform="atcoder",
        )  # fmt: skip

    rows = [row(i, f"2025-0{1 + i % 5}-15T00:00:00") for i in range(20)]
    write_rows(tmp_path / "test6.jsonl", rows, private="pickle")
    return tmp_path / "test6.jsonl"


def plan(model, data, algorithm, *overrides):
    common = (f"model.path={model}", f"data.path={data}", "data.release=null")
    return make_plan(load_recipe(find_recipe("livecodebench", algorithm), "gpu", (*common, *overrides)))


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_the_published_run(model, data, algorithm):
    text = plan(model, data, algorithm).text()
    assert "12 training, 12 evaluation tasks" in text  # the window leaves February, March and April
    assert "8,190.7 M parameters, bfloat16" in text
    assert "32 questions × 8 responses = 256 samples" in text
    assert "tests published, problems none" in text
    assert "4 GPU(s) for the learner, 4 × 1 for the engines" in text


def test_a_model_too_short_for_prompt_and_response(model, data):
    with pytest.raises(UserError, match="The model holds 40960 tokens, but prompt and response may take 60240"):
        plan(model, data, "sdpo", "rollout.max_response_tokens=50000")


def test_a_model_that_is_not_there(data):
    with pytest.raises(UserError, match="no model folder nowhere/at-all/x.*Give a Hugging Face folder"):
        plan("nowhere/at-all/x", data, "sdpo")


def test_broken_rows_are_named(model, data):
    data.write_text(data.read_text() + "{broken\n" * 3)
    with pytest.raises(UserError, match=r"3 of 23 rows cannot be used(.|\n)*test6.jsonl, line 21"):
        plan(model, data, "sdpo")


def test_a_prompt_longer_than_its_budget(model, data):
    with pytest.raises(UserError, match="context.max_prompt_tokens=20"):
        plan(model, data, "sdpo", "context.max_prompt_tokens=20")


def test_the_command_prints_the_plan_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "livecodebench", "--profile", "cpu", "--dry-run", "run.steps=3"]) == 0
    shown = capsys.readouterr().out
    assert "Profile cpu: asked for." in shown and "3 steps, 192 samples" in shown and "Nothing was started." in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ("true", "32 held-out problems + 64 training problems × 4 samples at temperature 1.0 = 384"),
        ("false", "32 held-out problems × 4 samples at temperature 1.0 = 128"),
    ],
)
def test_all_that_an_evaluation_samples_is_planned(training, says):
    common = ["run.steps=3", f"evaluation.training_problems={training}", "evaluation.thinking=ignored"]
    text = make_plan(load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", common)).text()
    assert says in text and "thinking: ignored" in text


def test_a_gpu_run_can_be_planned_without_a_gpu(model, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = [f"model.path={model}", f"data.path={data}", "data.release=null"]
    assert main(["train", "livecodebench", "--profile", "gpu", "--dry-run", *arguments]) == 0
    assert "Nothing was started." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "livecodebench", "--profile", "gpu"], "Profile gpu was asked for, but this machine has no usable"),
        (["train", "livecodebench", "--profile", "tpu"], "There is no profile 'tpu'"),
        (["train", "livecodebnch"], "Did you mean livecodebench?"),
        (["train", "livecodebench", "--profile", "cpu", "learner.lrr=1"], "Did you mean learner.lr?"),
        (
            ["train", "livecodebench", "--profile", "cpu", "model.path=/nowhere/at/all"],
            "There is no model folder /nowhere/at/all",
        ),
        (["train", "livecodebench", "--profile", "cpu", "sandbox.isolation=moat"], "sandbox.isolation"),
        (["eval", "nowhere"], "There is no model in nowhere"),
        (["export", "nowhere", "out"], "There is no model in nowhere"),
        (["compare", "livecodebench"], "livecodebench"),
    ],
)
def test_wrong_input_gets_one_clear_message(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and says in shown and "Traceback" not in shown


def test_a_model_that_cannot_be_packed_is_planned_one_sequence_at_a_time(model, data):
    config = family("stablelm", max_position_embeddings=40960, vocab_size=768, architectures=["StableLmForCausalLM"])
    (model / "config.json").write_text(config.to_json_string())
    text = plan(model, data, "sdpo").text()
    assert "stablelm is trained without packing" in text and "does not pass on the options of its call" in text


def test_a_bigger_model_as_the_teacher(model, data, tmp_path):
    bigger = tmp_path / "Qwen3-32B"
    shutil.copytree(model, bigger)
    sizes = {"hidden_size": 5120, "num_hidden_layers": 64, "intermediate_size": 25600, "num_attention_heads": 64}
    (bigger / "config.json").write_text(json.dumps(QWEN3_8B | sizes))
    frozen = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "probe.every=0")
    own = (*frozen, "teacher.placement=own", "teacher.ranks=2", f"teacher.model={bigger}")
    found = plan(model, data, "sdpo", *own)
    text = found.text()
    assert f"teacher: 2 rank(s) of its own with {bigger}" in text and "2 for the teacher" in text
    [table] = [table for table in found.tables if str(table.title).startswith("2 × teacher")]
    assert table.row_count == 4  # weights, a pass, CUDA, together
    assert "s score beside it" in text and "GPU hours on 10 GPU(s)" in text
    assert "teacher's answers 20.0 GiB" in text  # 256 × 8,192 × 5,120 × 2 bytes
    assert "teacher" not in plan(model, data, "sdpo", *frozen).sections["placement"][1]


def test_a_teacher_of_other_tokens_is_refused(model, data):
    frozen = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "probe.every=0")
    other = PROJECT / "policies" / "minitools"
    with pytest.raises(UserError, match=r"teacher.model=.*minitools has another tokenizer than .*tokens differ"):
        plan(model, data, "sdpo", *frozen, "teacher.placement=own", f"teacher.model={other}")
