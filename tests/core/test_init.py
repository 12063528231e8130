"""`sdpo init`: for a model and rows of one's own it writes a recipe that checks and plans without another word."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import yaml

from sdpo.cli import main
from sdpo.config.files import load_recipe
from sdpo.config.paths import PROJECT
from sdpo.envs.code import write_rows
from sdpo.envs.minicode import make_world, world_rows
from sdpo.envs.recognised import recognised
from tests.helpers.own_model import make_own_model

PROMPTS = [f"What is {n} + {n * n}?" for n in range(40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_own_model(tmp_path_factory.mktemp("own") / "model", context=4096)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("sums.py", "sums.jsonl"):
        shutil.copy(PROJECT / "docs" / "examples" / name, tmp_path)
    path = list(sys.path)
    yield
    sys.path[:] = path


def rows(*, name: str = "rows.jsonl", **columns) -> str:
    """A file of rows with a question each; columns: from the row's number to a value."""
    made = [{"question": q} | {key: value(n) for key, value in columns.items()} for n, q in enumerate(PROMPTS)]
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in made)
    return name


def init(*words: str, file: str = "my.yaml") -> int:
    return main(["init", file, *words])


def recipe(profile: str = "cpu"):
    from pathlib import Path

    return load_recipe(Path("my.yaml"), profile)


def test_a_reward_of_ones_own(model, capsys):
    assert init("--model", str(model), "--data", "sums.jsonl", "--reward", "sums.py:reward") == 0
    said = capsys.readouterr().out
    assert "Rewards: sums.py:reward, a function of yours." in said and "sdpo tasks check my.yaml" in said
    assert "Tasks: 50; the longest of 50 prompts has " in said and "the longest answer has " in said
    text = open("my.yaml").read()
    assert "# the longest of 50 prompts has" in text and len(text.splitlines()) < 50
    for profile in ("cpu", "gpu"):
        made = recipe(profile)
        assert (made.environment.kind, made.environment.reward) == ("function", "sums.py:reward")
        assert made.data.problem_split == "hash" and made.context.template == "published" and made.learner.lr == 1e-3
        longest = max(made.context.max_prompt_tokens, made.context.max_reprompt_tokens)
        assert longest + made.rollout.max_response_tokens <= 4096
    assert main(["tasks", "check", "my.yaml", "--profile", "cpu", "--n", "4"]) == 0
    assert main(["train", "my.yaml", "--profile", "cpu", "--dry-run"]) == 0
    assert "Nothing was started." in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["grpo", "srpo"])
def test_other_algorithms(model, algorithm):
    words = ("--model", str(model), "--data", rows(answer=lambda n: n + n * n), "--algorithm", algorithm)
    assert init(*words) == 0
    made = recipe()
    assert made.algorithm.name == algorithm and made.environment.kind == "math"
    assert ("max_reprompt_tokens" in open("my.yaml").read()) == (algorithm != "grpo")


@pytest.mark.parametrize("algorithm", ["sft", "sdft", "opsd"])
def test_what_learns_from_reference_answers_has_recipes_of_its_own(model, capsys, algorithm):
    assert init("--model", str(model), "--data", "sums.jsonl", "--algorithm", algorithm) == 2
    assert f"{algorithm} learns from reference answers" in capsys.readouterr().err


def test_a_bundled_policy_gets_the_template_that_it_was_made_for():
    assert init("--model", "policies/minicode", "--data", "sums.jsonl", "--reward", "sums.py:reward") == 0
    assert recipe().context.template == "compact"


def test_rows_with_tests_go_to_the_sandbox(model, capsys):
    write_rows("problems.jsonl", list(world_rows(make_world(3)))[:24])
    assert init("--model", str(model), "--data", "problems.jsonl") == 0
    assert recipe().environment.kind == "code" and "run in the sandbox" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "kind", "source"),
    [
        ({"answer": lambda n: n}, "math", None),
        ({"answer": lambda n: rf"\frac{{{n}}}{{7}}"}, "math", None),
        ({"choices": lambda n: ["yes", "no"], "answer": lambda n: n % 2}, "choice", None),
        ({"test_cases": lambda n: [f"assert f({n}) == {n}"]}, "code", "acecode"),
        ({"text": lambda n: f"Add {n}.", "test_list": lambda n: [f"assert f({n}) == {n}"]}, "code", "mbpp"),
        ({"answer": lambda n: "Paris"}, None, None),
        ({"note": lambda n: "x"}, None, None),
    ],
)
def test_rows_say_what_grades_them(columns, kind, source):
    with open(rows(**columns)) as file:
        found = recognised([json.loads(line) for line in file])
    assert (found and found.kind, found and found.source) == (kind, source)


def test_without_a_known_reward_one_is_asked_for(model, capsys):
    assert init("--model", str(model), "--data", rows(answer=lambda n: "Paris")) == 2
    said = capsys.readouterr().err
    assert "columns: question, answer" in said and "--reward my_reward.py:reward" in said


def test_marks_of_the_rows_are_kept(model):
    data = rows(answer=lambda n: n, split=lambda n: "test" if n % 4 == 0 else "train")
    assert init("--model", str(model), "--data", data) == 0
    assert yaml.safe_load(open("my.yaml"))["data"] == {"path": data, "problem_split": "marked"}


def test_nothing_is_written_over_and_nothing_is_written_that_does_not_run(model, capsys, tmp_path):
    words = ("--model", str(model), "--data", "sums.jsonl", "--reward", "sums.py:reward")
    open("my.yaml", "w").write("mine")
    assert init(*words) == 2 and "my.yaml is there already" in capsys.readouterr().err
    assert open("my.yaml").read() == "mine"
    assert init(*words, "--force") == 0 and recipe().recipe == "my"
    assert init(*words, file="my.txt") == 2 and "call it my.txt.yaml" in capsys.readouterr().err
    for wrong, says in (
        (["--model", "nowhere/at/all"], "There is no model folder nowhere/at/all"),
        (["--data", "nowhere.jsonl"], "There is no file or folder nowhere.jsonl"),
        (["--reward", "sums.py:rewart"], "rewart"),
        (["--algorithm", "spdo"], "algorithm.name=spdo is unknown"),
        (["--model", str(make_own_model(tmp_path / "small", context=200))], "The model holds 200 tokens"),
    ):
        assert init(*words, *wrong, file="other.yaml") == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "other.yaml").exists()
