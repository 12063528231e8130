"""`sdpo tasks check`: what looks wrong is said before anything is started, whatever the environment."""

from __future__ import annotations

import shutil
import sys

import pytest

from sdpo.cli import main
from sdpo.config.paths import PROJECT


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("sums.py", "sums.jsonl", "sums.yaml"):
        shutil.copy(PROJECT / "docs" / "examples" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield
    sys.path[:] = path


def check(capsys, *words: str, reward: str = "") -> tuple[int, str]:
    """Exit status, and what is printed."""
    if reward:
        with open("mine.py", "w") as file:
            file.write(
                f"import os, time\nfrom sums import reward as right\ndef reward(task, response):\n    {reward}\n"
            )
        words = ("environment.reward=mine.py:reward", *words)
    status = main(["tasks", "check", "sums.yaml", "--profile", "cpu", "--n", "6", *words])
    return status, " ".join(capsys.readouterr().out.split())


def test_the_documented_example_has_nothing_wrong(capsys):
    status, said = check(capsys)
    assert status == 0 and "No problem was found." in said, said
    assert "sums: 50 rows" in said and "reference 12 of 12 12 1 … 1, mean 1" in said


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("return 0.5, 'no'", "Every answer got the reward 0.5, right or wrong"),
        ("return float(right(task, response) != 1.0), 'no'", "12 of 12 reference answers are not solved, e.g. task"),
        ("return float(right(task, response) == 1.0)", "unsolved answers got feedback"),
        ("return 1.0, 'fine'", "12 of 12 empty answers count as solved, e.g. task"),
        (
            "return right(task, response) if response else time.sleep(60)",
            "12 of 36 answers got no reward (reward timeout)",
        ),
        ("return right(task.solution, response)", "reward error: AttributeError"),
    ],
)
def test_what_looks_wrong_in_a_reward_is_said(capsys, reward, says):
    status, said = check(capsys, "environment.time_limit_s=0.5", reward=reward)
    assert status == 1 and says in said, said


def test_rewards_without_feedback_are_fine_where_nobody_reads_it(capsys):
    options = ("algorithm.name=grpo", "context.feedback=null", "context.max_reprompt_tokens=null")
    status, said = check(capsys, *options, reward="return float(right(task, response) == 1.0)")
    assert status == 0 and "nothing in this recipe reads it" in said


def test_rows_that_cannot_be_used_are_shown_with_their_lines(capsys):
    with open("sums.jsonl", "a") as file:
        file.write('{"qestion": "What is 1 + 1?", "answer": 2}\n')
    status, said = check(capsys)
    assert status == 1 and "1 of 51 rows cannot be used: sums.jsonl, line 51: there is no column prompt" in said
    status, said = check(capsys, "data.max_bad_rows=0")
    assert status == 1 and "0 would be accepted" in said


def test_a_prompt_that_does_not_fit_is_wrong(capsys):
    status, said = check(capsys, "context.max_prompt_tokens=8")
    assert status == 1 and "context.max_prompt_tokens" in said


def test_a_function_that_is_not_there_is_wrong(capsys):
    status, said = check(capsys, "environment.reward=sums.py:rewrad")
    assert status == 1 and "Did you mean reward?" in said


@pytest.mark.parametrize("recipe", ["livecodebench", str(PROJECT / "docs" / "examples" / "addition.yaml")])
def test_any_environment_can_be_tried(capsys, monkeypatch, recipe):
    monkeypatch.syspath_prepend(str(PROJECT / "docs" / "examples"))
    status = main(["tasks", "check", recipe, "--profile", "cpu", "--n", "3"])
    said = " ".join(capsys.readouterr().out.split())
    assert status == 0 and "reference 6 of 6 6 1 … 1, mean 1" in said, said
