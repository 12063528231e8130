"""Generated puzzles: repeatable, disjoint, graded by the library in worker processes, told in words."""

from __future__ import annotations

import json

import pytest
from reasoning_gym.factory import DATASETS

from sdpo.config.files import validate
from sdpo.envs import build_environment
from sdpo.envs.gym import outcome_of, seed_of
from sdpo.envs.puzzles import check_family, judge, puzzles
from sdpo.errors import UserError
from tests.helpers.tasks import turn

# No reference answer of their own, says the library: several are right, and none is written down.
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
MIXTURE = {"datasets": [{"name": "spell_backward"}, {"name": "leg_counting", "weight": 2.0}]}


def recipe(seed=0, **options):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "seed": seed,
        "environment": {"kind": "gym", **options},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "run": {"steps": 3, "questions": 16},
    }
    return validate(values, "own.yaml")


def load(seed=0, **options):
    return build_environment(recipe(seed, **options)).load()


def asked(tasks):
    return [task.messages[-1]["content"] for task in tasks]


def test_tasks_are_as_many_as_the_run_draws_the_same_again_and_others_by_another_seed():
    first, again, other = load(), load(), load(1)
    assert len(first.train) == 48 and len(first.evaluation) == 128 and first.held_out
    assert asked(first.train) == asked(again.train) != asked(other.train)
    assert len(set(asked(first.train)) & set(asked(other.train))) < 5  # seeds do not shift each other's questions
    assert asked(first.evaluation) == asked(other.evaluation)
    assert len(load(tasks=7).train) == 7


def test_no_question_to_evaluate_on_is_trained_on_however_few_there_are():
    few = load(options={"min_word_len": 3, "max_word_len": 3}, tasks=300, held_out=64)
    assert len(set(asked(few.evaluation))) == 64
    assert set(asked(few.evaluation)).isdisjoint(asked(few.train))


def test_seeds_of_chunks_are_far_apart():
    seeds = sorted(seed_of(f"training {run}", chunk) for run in range(20) for chunk in range(20))
    assert min(b - a for a, b in zip(seeds, seeds[1:], strict=False)) > 500


@pytest.mark.slow  # the library takes seconds to import in the server of the workers
async def test_answers_are_scored_in_workers_and_told_in_words():
    environment = build_environment(recipe())
    task = environment.load().train[0]
    right = task.content.entry["answer"]
    with environment:
        made = [
            await environment.grade(task, turn(text), "training")
            for text in (task.solution, right, "<answer>0</answer>", f"<answer>{right[:-1]}0</answer>")
        ]
        cut = await environment.grade(task, turn("hm", finish_reason="length"), "training")
    assert [outcome.label for outcome in made] == ["right", "no answer", "wrong", "partly"]
    assert made[0].solved and made[0].reward == 1.0 and made[0].feedback is None
    assert made[1].feedback.startswith("There is no answer in your response.")
    assert made[2].feedback == "Your answer is wrong. You gave: 0"
    assert "its score is 0." in made[3].feedback and 0 < made[3].reward < 1
    assert all(right not in outcome.feedback for outcome in made[1:]) and "cut off" in cut.feedback


def test_scores_that_are_no_numbers_and_answers_that_the_library_falls_on():
    entry = puzzles("prime_factorization", "{}", 1)[0]
    assert judge("prime_factorization", "{}", "foo bar", entry) is None  # it raises ValueError
    assert outcome_of(None, "x").label == outcome_of(float("nan"), "x").label == "unreadable"
    assert outcome_of(7.0, "x").reward == 1.0 and outcome_of(-1.0, "x").reward == 0.0
    assert outcome_of(0.9, "x", solved_from=0.8).solved and not outcome_of(0.9, "x").solved


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"family": "spell_backwards"}, "Did you mean spell_backward"),
        ({"options": {"max_len": 3}}, "environment.options.max_len is not an option of spell_backward"),
        ({"options": {"seed": 3}}, "environment.options.seed is not an option"),
        ({"options": {"min_word_len": 9, "max_word_len": 3}}, "max_word_len must be >= min_word_len"),
        ({"family": "composite"}, "Must specify at least one dataset"),
        ({"prompt": "nice"}, "environment.prompt=nice is unknown; the library has DeepSeekZero, default"),
        ({"options": {"min_word_len": 1, "max_word_len": 2}}, "gives 0 different questions to evaluate on"),
    ],
)
def test_mistakes_are_named(options, says):
    with pytest.raises(UserError) as error:
        load(**options)
    assert says in str(error.value)


def test_a_mixture_of_families():
    mixed = load(family="composite", options=MIXTURE, held_out=8, tasks=40)
    kinds = {task.difficulty for task in mixed.train}
    assert kinds == {"spell_backward", "leg_counting"}


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(DATASETS))
def test_every_family_loads_and_its_own_answer_scores_1(family):
    options = MIXTURE if family == "composite" else {}
    check_family(family, options)
    dataset = load(family=family, options=options, held_out=2, tasks=3)
    tasks = [*dataset.train, *dataset.evaluation]
    assert len(tasks) == 5 and all(asked(tasks))
    for task in tasks:
        answer = task.content.entry["answer"]
        if family in WITHOUT_ANSWER:
            assert answer is None and task.solution is None
        else:
            assert judge(family, json.dumps(options), answer, task.content.entry) == 1.0
