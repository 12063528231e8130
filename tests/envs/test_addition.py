"""The documented environment that is not code: its recipe, its options, its grading, and what other sections it has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import dump, load_recipe, load_resolved
from sdpo.config.paths import PROJECT
from sdpo.envs import build_environment
from sdpo.errors import UserError
from sdpo.types import Group, Rollout
from tests.helpers.prompts import builder
from tests.helpers.tasks import turn

EXAMPLE = PROJECT / "docs" / "examples" / "addition.yaml"


@pytest.fixture
def addition(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))


def load(*overrides: str, profile: str = "cpu"):
    return load_recipe(EXAMPLE, profile, overrides)


def test_the_example_is_short():
    assert len((EXAMPLE.parent / "addition.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_its_options_are_resolved_and_read_back(addition, profile, tmp_path):
    recipe = load("environment.tasks=9", profile=profile)
    options = recipe.environment.kind, recipe.environment.largest, recipe.environment.tasks
    assert options == ("addition:Addition", 20, 9)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("environment.largst=5", "unknown option environment.largst. Did you mean environment.largest?"),
        ("environment.heldout=5", "unknown option environment.heldout. Did you mean environment.held_out?"),
        ("environment.style=compact", "unknown option environment.style"),  # of another environment
        ("environment.largest=1", "environment.largest: Input should be greater than or equal to 4"),
        ("environment.tasks=999", "there are 441 sums up to environment.largest, not 1031"),
        ("environment.kind=mincode", "environment.kind=mincode is unknown. Did you mean minicode?"),
        ("environment.kind=addition:Nothing", "environment.kind=addition:Nothing cannot be imported"),
        ("data.source=minicode", "data.source has no effect with environment.kind=addition:Addition"),
        ("data.world_seed=1", "data.world_seed has no effect with environment.kind=addition:Addition"),
        ("sandbox.workers=1", "sandbox.workers has no effect with environment.kind=addition:Addition"),
    ],
)
def test_mistakes_are_named(addition, override, says):
    with pytest.raises(UserError) as error:
        load(override)
    assert says in str(error.value)


def test_training_and_evaluation_tasks_are_apart_and_may_both_be_measured(addition):
    dataset = build_environment(load("evaluation.training_problems=true")).load()
    assert (len(dataset.train), len(dataset.evaluation), dataset.held_out) == (64, 32, True)
    assert list(dataset.evaluation_sets(True)) == ["held_out", "train"]
    assert all(task.content == sum(map(int, task.id.split("+"))) for task in (*dataset.train, *dataset.evaluation))
    again = build_environment(load()).load()
    assert again.train == dataset.train
    assert build_environment(load("seed=1")).load().train != dataset.train


@pytest.mark.parametrize(
    ("answer", "wanted", "solved", "label", "feedback"),
    [
        ("3 + 4 = 7", 1.0, True, "right", None),
        ("It is 9.", 1 / 3, False, "wrong number", "Your answer 9 is too large by 2."),
        ("-1", 1 / 9, False, "wrong number", "Your answer -1 is too small by 8."),
        ("seven", 0.0, False, "no number", "There is no number in your answer."),
    ],
)
async def test_grading(addition, answer, wanted, solved, label, feedback):
    environment = build_environment(load())
    outcome = await environment.grade(environment._task(3, 4), turn(answer), "training")
    assert (outcome.reward, outcome.solved, outcome.label) == (pytest.approx(wanted), solved, label)
    assert outcome.feedback == feedback


async def test_it_has_several_turns_without_a_line_about_them(addition):
    environment = build_environment(load("environment.turns=3"))
    task = environment._task(3, 4)
    for answers, replied in ((["9"], True), (["9", "8"], True), (["9", "8", "6"], False), (["7"], False)):
        outcome = await environment.respond(task, [turn(answer) for answer in answers], "training")
        assert outcome == replace(await environment.grade(task, turn(answers[-1]), "training"), reply=outcome.reply)
        told = f"\nFeedback:\nYour answer {answers[-1]} is too large by {int(answers[-1]) - 7}."
        assert [message["content"] for message in outcome.reply] == ([told] if replied else [])
    outcome = await build_environment(load()).respond(task, [turn("9")], "training")
    assert outcome.feedback and not outcome.reply  # one turn


async def test_real_rewards_give_advantages_and_the_words_reach_the_teacher(addition, tokenizer):
    environment = build_environment(load())
    task = environment._task(3, 4)
    turns = [turn(text, await environment.grade(task, turn(text), "training")) for text in ("9", "6", "five")]
    group = Group(task, tuple(Rollout((made,)) for made in turns))
    assert group.rewards == pytest.approx([1 / 3, 1 / 2, 0])
    contexts, rng = builder(tokenizer, feedback="always"), np.random.default_rng(0)
    without_teacher = ("distillation=null", "context.feedback=null", "context.max_reprompt_tokens=null")
    [samples] = build_algorithm(load("algorithm.name=grpo", *without_teacher)).assign([group], contexts, rng)
    assert [float(s.advantages[0]) for s in samples] == pytest.approx([1 / 3 - 5 / 18, 1 / 2 - 5 / 18, -5 / 18])
    [samples] = build_algorithm(load()).assign([group], contexts, rng)
    prompts = [tokenizer.decode(s.teacher.prompt_ids) for s in samples]
    assert "Your answer 9 is too large by 2." in prompts[0] and "There is no number" in prompts[2]
    assert all("What is 3 + 4?" in prompt for prompt in prompts)
