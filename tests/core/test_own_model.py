"""A model that is not the bundled one: what of a recipe was made for another is measured anew, or refused, before
anything is started."""

from __future__ import annotations

import re

import pytest

from sdpo.cli import main
from sdpo.cli.plan import make_plan
from sdpo.config.files import dump, find_recipe, load_recipe
from sdpo.config.identity import flatten
from sdpo.config.model_files import load_tokenizer
from sdpo.config.other_model import OtherModel, other_model
from sdpo.config.schema import changed
from sdpo.errors import UserError
from sdpo.prompts.templates import COMPACT, PUBLISHED, suited, unknown_words
from sdpo.rollout.servable import architectures, cpu_head_sizes
from sdpo.training import fitting
from sdpo.training.parts import check_template
from tests.helpers.own_model import make_own_model

FITTING = ("context.template=published", "context.max_prompt_tokens=2048", "context.max_reprompt_tokens=4096")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_own_model(tmp_path_factory.mktemp("own") / "model", context=8192)


def recipe(model, *overrides, algorithm="sdpo", name="livecodebench"):
    return load_recipe(find_recipe(name, algorithm), "cpu", [f"model.path={model}", *overrides])


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_a_template_of_other_models_is_refused_and_what_is_advised_runs(model, algorithm):
    with pytest.raises(UserError, match=r"context.template=compact is for models that were trained on it") as caught:
        make_plan(recipe(model, algorithm=algorithm))
    said = str(caught.value)
    assert f"{model} has no token '\\nSolution:\\n'" in said and f"sdpo init my.yaml --model {model}" in said
    advised = re.search(r"give for example: (.+?)\. Or let", said)[1].split()
    assert advised[0] == "context.template=published" and "learner.lr=0.001" in advised
    assert any(text.startswith("context.max_reprompt_tokens=") for text in advised) == (algorithm == "sdpo")
    text = make_plan(recipe(model, *advised, algorithm=algorithm)).text()
    assert f"model: {model}: 0." in text and "the model 8192" in text


BUNDLED = "extends: recipes/livecodebench/sdpo.yaml\n"


def test_what_was_said_of_another_model_is_told_from_what_was_said_of_this_one(tmp_path):
    file = tmp_path / "mine.yaml"

    def found(text: str, *overrides: str) -> OtherModel | None:
        file.write_text(text)
        return other_model(file, "cpu", overrides)

    assert found(BUNDLED) is None and found(BUNDLED, "model.path=policies/minicode", "learner.lr=1") is None
    assert found("recipe: x\n", "model.path=a") is None  # no other model was there
    given = found(BUNDLED, "model.path=a", "learner.lr=1", "context.max_prompt_tokens=null")
    assert (given.path, given.template) == ("policies/minicode", "compact")
    assert given.since >= {"model.path", "learner.lr", "context.max_prompt_tokens"}
    assert "rollout.max_response_tokens" not in given.since
    own = BUNDLED + "model: {path: a}\nprofiles: {cpu: {rollout: {max_response_tokens: 9}}}\n"
    since = frozenset({"model.path", "rollout.max_response_tokens"})
    assert found(own) == OtherModel("policies/minicode", "compact", since)
    chat = found(own + "context: {template: published}\n", "model={path: b}")
    assert (chat.path, chat.template, chat.since) == ("a", "published", {"model.path", "model"})


def fit(model, *overrides, algorithm="sdpo", recorded=None):
    file, given = find_recipe("livecodebench", algorithm), [f"model.path={model}", *overrides]
    return fitting.fitted(load_recipe(file, "cpu", given), file, given, recorded=recorded)


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_another_model_in_a_bundled_recipe_gets_what_suits_it_and_keeps_what_was_given(model, algorithm, capsys):
    found = fit(model, "rollout.max_response_tokens=100", algorithm=algorithm)
    said = capsys.readouterr().out
    assert f"The recipe was written for policies/minicode. For {model}, which has another vocabulary:" in said
    assert "  context.template: compact → published (the wording for chat models)" in said
    line = re.search(r"  context.max_prompt_tokens: 256 → (\d+) \(the longest of \d+ prompts has (\d+)\)", said)
    assert int(line[1]) == found.context.max_prompt_tokens >= int(line[2])
    assert ("  context.max_reprompt_tokens: 512 → " in said) == (algorithm == "sdpo")
    assert ("  learner.lr: 0.0005 → 0.001 (" in said) == (algorithm == "grpo")  # SDPO's is the same
    assert "  rollout.max_response_tokens" not in said and found.rollout.max_response_tokens == 100


def test_it_checks_and_plans_without_another_word(model, capsys):
    words = ["livecodebench", "--profile", "cpu", f"model.path={model}"]
    assert main(["tasks", "check", "--n", "2", *words]) == 0
    assert main(["train", *words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("  context.template: compact → published") == 2


def test_a_resumed_run_keeps_what_it_was_begun_with(model, tmp_path, capsys):
    begun = changed(fit(model), {"context.max_prompt_tokens": 4000, "learner.lr": 3e-4})
    (tmp_path / "recipe.yaml").write_text(dump(begun))
    capsys.readouterr()
    again = fit(model, recorded=tmp_path / "recipe.yaml")
    assert again == begun and "256 → 4000 (as when the run began)" in capsys.readouterr().out
    new = flatten(fit(model, "learner.lr=1", recorded=tmp_path / "recipe.yaml").model_dump())
    assert (new["learner.lr"], new["context.max_prompt_tokens"]) == (1, 4000)


def test_models_that_know_the_template_and_recipes_for_chat_models_stay_as_they_are(model):
    assert fit("policies/minitools") == recipe("policies/minitools")
    file = find_recipe("livecodebench", "sdpo")
    given = load_recipe(file, "gpu", [f"model.path={model}"])
    assert fitting.fitted(given, file, [f"model.path={model}"]) is given


def test_a_template_that_is_asked_for_by_name_is_refused(model, capsys):
    words = ["--profile", "cpu", f"model.path={model}", "context.template=compact", "--dry-run"]
    assert main(["train", "livecodebench", *words]) == 2
    assert "context.template=compact is for models that were trained on it" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["minicode", "minitools"])
def test_the_bundled_policies_have_the_words_of_their_template_whatever_their_folder_is_called(policy):
    tokenizer = load_tokenizer(recipe(f"policies/{policy}"))
    assert unknown_words(COMPACT, tokenizer) == [] and suited(tokenizer) == "compact"
    check_template(recipe(f"policies/{policy}"), tokenizer)


def test_a_template_without_words_of_its_own_suits_every_model(model):
    tokenizer = load_tokenizer(recipe(model))
    assert unknown_words(PUBLISHED, tokenizer) == [] and suited(tokenizer) == "published"
    check_template(recipe(model, "context.template=published"), tokenizer)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["rollout.max_response_tokens=8000"], r"The model holds 8192 tokens, but prompt and response may take 1\d{4}"),
        (["context.max_prompt_tokens=100"], r"has \d+ tokens, more than context.max_prompt_tokens=100"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(model, overrides, says):
    with pytest.raises(UserError, match=says):
        make_plan(recipe(model, *FITTING, *overrides))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"head_dim": 16}, r"attention heads of \S+ have the size 16; on a CPU vLLM has 32, 64, 80"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification, is none that vLLM"),
        ({"architectures": None}, r'names no architecture.* Add "architectures": \["Qwen3ForCausalLM"\]'),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "is no causal language model, but T5Model"),
        ({"vocab_size": 100}, "The tokenizer of .* has 258 tokens, its model only 100"),
    ],
)
def test_a_model_that_vllm_cannot_serve_is_refused(tmp_path, config, says):
    model = make_own_model(tmp_path / "model", **config)
    with pytest.raises(UserError, match=says):
        make_plan(recipe(model, *FITTING))


def test_reference_answers_that_no_response_can_hold_are_noted(model):
    text = make_plan(recipe(model, *FITTING, "rollout.max_response_tokens=16")).text()
    assert re.search(r"Of 64 reference answers, \d+ have more than rollout.max_response_tokens=16 tokens", text), text


def test_what_is_read_of_vllm_is_what_vllm_declares():
    assert {"Qwen3ForCausalLM", "LlamaForCausalLM", "Olmo2ForCausalLM"} <= architectures()
    assert not {"BertModel", "Qwen3ForSequenceClassification"} & architectures()
    assert {32, 64, 128} <= set(cpu_head_sizes()) and 16 not in cpu_head_sizes()


@pytest.mark.parametrize("answer", [None, 10, 300])
def test_limits_hold_what_was_measured_within_the_models_positions(answer):
    for positions in (1000, 2048, 40960):
        for prompt in (50, 200, 400):
            found = fitting.Lengths(prompt, prompt + 40, answer)
            asked, taught, response = fitting.limits(found, positions, 128).values()
            assert prompt <= asked and prompt + 40 < taught and max(asked, taught) + response <= positions
            if positions > 2000:
                assert response >= max(128, 2 * (answer or 0))
    with pytest.raises(UserError, match="The model holds 512 tokens, and the longest prompt has 300"):
        fitting.limits(fitting.Lengths(300, 340, 5), 512, 128)
