"""A reward of one's own: the documented example, what a function may return, and what happens to what it may not."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections import Counter

import pytest

from sdpo.config.files import dump, load_recipe, load_resolved
from sdpo.config.paths import PROJECT
from sdpo.envs import build_environment
from sdpo.envs.function import LABELS
from sdpo.envs.rewards import MAX_FEEDBACK, as_json
from sdpo.envs.workers.wire import Nonsense
from sdpo.errors import UserError
from sdpo.types import Outcome
from tests.helpers.tasks import turn

EXAMPLES = PROJECT / "docs" / "examples"

FAULTY = """
import asyncio, os, subprocess, sys, time
from sdpo.types import Outcome

ANSWERS = {
    "right": lambda: 1.0,
    "words": lambda: (0.25, "nearly"),
    "outcome": lambda: Outcome(0.5, solved=True, feedback="so so", label="half", details={"n": 1}),
    "ungradable": lambda: Outcome(None, label="no idea"),
    "loop": lambda: endless(),
    "raise": lambda: 1 / 0,
    "exit": lambda: os._exit(0),
    "flood": lambda: [print("x" * 2**20) for _ in range(1024)],
    "flood below": lambda: [os.write(1, b"x" * 2**20) for _ in range(1024)],
    "fork": lambda: os.fork() * 0.0,
    "child": lambda: 0.0 * subprocess.Popen(["sleep", "600"]).pid,
    "waited": lambda: 0.0 * subprocess.run(["true"]).returncode,
    "nan": lambda: float("nan"),
    "text": lambda: "1.0",
    "triple": lambda: (1.0, "a", "b"),
    "object": lambda: object(),
    "huge": lambda: "x" * 2**23,
}

def endless():
    while True:
        pass

async def reward(task, response):
    return ANSWERS[response]()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("sums.py", "sums.jsonl", "sums.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield
    sys.path[:] = path


def load(*overrides: str, profile: str = "cpu"):
    return load_recipe(PROJECT / "docs" / "examples" / "sums.yaml", profile, overrides)


def test_the_documented_example_is_short():
    assert len((EXAMPLES / "sums.py").read_text().splitlines()) <= 15
    assert len((EXAMPLES / "sums.yaml").read_text().splitlines()) <= 20
    assert len((EXAMPLES / "sums.jsonl").read_text().splitlines()) == 50


def test_the_page_shows_the_files_that_it_goes_with():
    page = (PROJECT / "docs" / "own-task.md").read_text()
    for name, language in (("sums.py", "python"), ("sums.yaml", "yaml")):
        [block] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        assert block in (EXAMPLES / name).read_text()
    [block] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert (EXAMPLES / "sums.jsonl").read_text().startswith(block)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_documented_recipe_reads_back_as_itself(profile, tmp_path):
    recipe = load(profile=profile)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


async def test_the_documented_reward_grades_and_says_what_is_wrong():
    with build_environment(load()) as environment:
        dataset = environment.load()
        assert (len(dataset.train) + len(dataset.evaluation), dataset.held_out) == (50, True)
        task = dataset.train[0]
        for answer, reward, feedback in (
            (f"It is {task.solution}.", 1.0, None),
            (str(int(task.solution) + 3), 0.25, f"{int(task.solution) + 3} is too large by 3."),
            ("I do not know.", 0.0, "There is no number in your answer."),
        ):
            outcome = await environment.grade(task, turn(answer), "training")
            assert (outcome.reward, outcome.feedback, outcome.solved) == (reward, feedback, reward == 1.0)
            assert outcome.label == ("solved" if outcome.solved else "not solved")


async def test_each_fault_costs_one_reward_is_counted_by_kind_and_shown_once(capfd):
    wrong = {
        "loop": "reward timeout",
        "raise": "reward error",
        "exit": "reward crash",
        "flood": "reward output",
        "flood below": "reward output",
        "fork": "reward processes",
        "child": "reward processes",
        "nan": "reward nonsense",
        "text": "reward nonsense",
        "triple": "reward nonsense",
        "object": "reward nonsense",
        "huge": "reward nonsense",
    }
    right = {"right": 1.0, "words": 0.25, "outcome": 0.5, "waited": 0.0}
    options = ("environment.reward=faulty.py:reward", "environment.time_limit_s=3", "environment.workers=1")
    with build_environment(load(*options)) as environment:
        task = environment.load().train[0]
        answers = [*wrong, *right, "ungradable"] * 3
        outcomes = await asyncio.gather(*(environment.grade(task, turn(a), "training") for a in answers))
    for answer, outcome in zip(answers, outcomes, strict=True):
        assert outcome.reward == right.get(answer), (answer, outcome)
        assert answer not in wrong or outcome.label == wrong[answer], (answer, outcome)
    assert environment.failures == {k: 3 * n for k, n in Counter(wrong.values()).items()}
    half = outcomes[answers.index("outcome")]
    assert (half.solved, half.feedback, half.label, half.details) == (True, "so so", "half", {"n": 1})
    said = capfd.readouterr().err
    assert all(said.count(f"({label}: ") == 1 for label in LABELS.values())
    assert said.count("ZeroDivisionError") == 2 and "faulty.py" in said and len(said) < 12_000
    assert all(label in outcomes[answers.index(a)].details["message"] for a, label in wrong.items())


async def test_the_threshold_of_solved_is_an_option():
    options = ("environment.reward=faulty.py:reward", "environment.solved_from=0.25")
    with build_environment(load(*options)) as environment:
        task = environment.load().train[0]
        assert (await environment.grade(task, turn("words"), "training")).solved


@pytest.mark.parametrize(
    ("value", "reward", "feedback"),
    [
        (1, 1.0, None),
        (True, 1.0, None),
        ((0.5, None), 0.5, None),
        ([0.5, "why"], 0.5, "why"),
        ((0.5, "  "), 0.5, None),
        (Outcome(0.5, feedback="why"), 0.5, "why"),
    ],
)
def test_what_a_reward_may_return(value, reward, feedback):
    made = as_json(value)
    assert (made["reward"], made["feedback"]) == (reward, feedback)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert as_json(numpy.float32(0.5))["reward"] == as_json((numpy.array(0.5), "x"))["reward"] == 0.5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "its reward is a NoneType"),
        ("1", "its reward is a str ('1'), not a number"),
        (1j, "its reward is a complex"),
        (float("inf"), "its reward is inf"),
        (10**400, "too large"),
        (-1e300, "its reward is -1e+300; at most 1e+09"),
        ((), "it returned 0 values"),
        ((1, 2, 3), "it returned 3 values"),
        ((1, 2), "its feedback is a int, not a text"),
        ({"reward": 1}, "its reward is a dict"),
        (Outcome("high"), "its reward is a str"),
        (Outcome(float("nan")), "its reward is nan"),
        (Outcome(1.0, feedback=5), "its feedback is a int"),
    ],
)
def test_what_a_reward_may_not_return(value, says):
    with pytest.raises(Nonsense) as error:
        as_json(value)
    assert says in str(error.value)


def test_half_characters_do_not_reach_tokenizers_and_files():
    made = as_json(Outcome(0.0, feedback="a\ud800b", label="c\ud800\n", details={"k": ["\udfff"]}))
    assert (made["feedback"], made["label"], made["details"]) == ("a?b", "c", {"k": ["?"]})


def test_long_feedback_is_cut():
    assert len(as_json((0.0, "x" * 10**6))["feedback"]) <= MAX_FEEDBACK + 2


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("environment.reward=sums.py", "names no function; give module:function or path.py:function"),
        ("environment.rewrad=a:b", "unknown option environment.rewrad. Did you mean environment.reward?"),
        ("environment.time_limit_s=0", "environment.time_limit_s"),
        ("sandbox.workers=1", "sandbox.workers has no effect with environment.kind=function"),
        ("data.source=minicode", "data.source=minicode is not what environment.kind=function reads"),
    ],
)
def test_mistakes_in_the_recipe_are_named(override, says):
    with pytest.raises(UserError) as error:
        load(override)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("reward", "says"),
    [("sums.py:rewrad", "has no function rewrad. Did you mean reward?"), ("sum.py:reward", "there is no file")],
)
def test_a_function_that_is_not_there_is_named_before_anything_is_started(reward, says):
    with pytest.raises(UserError, match=says):
        build_environment(load(f"environment.reward={reward}")).load()
