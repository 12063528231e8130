"""Responses become graded groups: the same way for training and for evaluation, and each as soon as it is there."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import Dataset, Environment
from sdpo.evaluation import count
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import EVALUATION_ATTEMPTS, Generation
from sdpo.training.batch_metrics import batch_metrics, ungraded_warning
from sdpo.types import Outcome, Task
from tests.helpers.policy import ScriptedPolicy

TASK = Task("greet", ({"role": "user", "content": "Say hello."},), content="hello", difficulty="easy")
TEXTS = ["hello", "good day", "broken", "hello you"]


class Greeting(Environment):
    """Solved by the one word, half of the reward for a longer greeting; some answers cannot be graded."""

    def __init__(self, recipe):
        super().__init__(recipe)
        self.graded: list[tuple[str, str]] = []

    def load(self, progress=None):
        return Dataset([TASK], [TASK], "greetings")

    async def grade(self, task, turn, purpose):
        self.graded.append((turn.text, purpose))
        if turn.text == "broken":
            return Outcome(None, label="no answer", details={"message": "the judge is ill"})
        if task.content not in turn.text:
            return Outcome(0.0, feedback=f"Say {task.content}.", label="wrong")
        solved = turn.text == task.content
        return Outcome(1.0 if solved else 0.5, solved, None if solved else "Shorter.", "right" if solved else "close")


def recipe_of(algorithm: str, *overrides: str):
    common = ("context.template=published", "context.max_prompt_tokens=256", "rollout.responses=4")
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", (*common, *overrides))


async def scripted(prompt: str, i: int) -> str:
    return TEXTS[i]


def generation(recipe, tokenizer, answer=scripted) -> Generation:
    contexts = ContextBuilder(tokenizer, recipe.context)
    return Generation(recipe, Greeting(recipe), contexts, tokenizer, ScriptedPolicy(tokenizer, answer))


async def trained_on(made: Generation, **options):
    return await (await made.training_group(TASK, [0, 1, 2], **options)).graded()


async def test_training_and_evaluation_share_generation_and_grading(tokenizer):
    made = generation(recipe_of("grpo"), tokenizer)
    training, evaluation = await trained_on(made), await made.evaluation_group(TASK, 4)
    assert [r.last.text for r in training.rollouts] == TEXTS
    for one, other in zip(training.rollouts, evaluation.rollouts, strict=True):
        assert (one.last.text, one.last.prompt_ids, one.last.response_ids, one.outcome) == (
            other.last.text, other.last.prompt_ids, other.last.response_ids, other.outcome,
        )  # fmt: skip
    evaluated = [(text, EVALUATION_ATTEMPTS if text == "broken" else 1) for text in TEXTS]
    tries = [(t, "training") for t in TEXTS] + [(t, "evaluation") for t, times in evaluated for _ in range(times)]
    assert sorted(made.environment.graded) == sorted(tries)  # what an evaluation could not grade is tried again
    (n, sampling, seed), (m, other_sampling, other_seed) = made.pool.asked
    assert (n, m) == (4, 4) and seed != other_seed
    assert (sampling.max_tokens, other_sampling.max_tokens) == (48, 48)


async def test_an_evaluation_is_seeded_by_its_task_alone(tokenizer):
    made = generation(recipe_of("grpo"), tokenizer)
    for _ in range(2):
        await made.evaluation_group(TASK, 1)
    assert made.pool.asked[0][2] == made.pool.asked[1][2]


async def test_what_needs_no_rewards_is_not_graded(tokenizer):
    made = generation(recipe_of("grpo"), tokenizer)
    group = await trained_on(made, graded=False)
    assert [r.last.text for r in group.rollouts] == TEXTS and made.environment.graded == []
    assert all(r.outcome is None and not r.graded and not r.solved for r in group.rollouts)
    assert np.isnan(group.rewards).all()


async def test_a_response_is_graded_while_others_are_still_written(tokenizer):
    others = asyncio.Event()

    async def answer(prompt, i):
        if i:
            await others.wait()
        return TEXTS[i]

    made = generation(recipe_of("grpo"), tokenizer, answer)
    waiting = asyncio.ensure_future(made.training_group(TASK, [0]))
    while not made.environment.graded and not waiting.done():
        await asyncio.sleep(0.001)
    assert made.environment.graded == [("hello", "training")] and not waiting.done()
    others.set()
    assert len((await (await waiting).graded()).rollouts) == 4


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo", "srpo"])
async def test_what_could_not_be_graded_trains_nothing_and_is_counted(tokenizer, algorithm):
    recipe = recipe_of(algorithm, "reference={coefficient: 0.1}")
    made = generation(recipe, tokenizer)
    group = await trained_on(made)
    assert group.graded.tolist() == [True, True, False, True]
    assert group.rewards[group.graded].tolist() == [1.0, 0.0, 0.5]
    [samples] = build_algorithm(recipe).assign([group], made.contexts, np.random.default_rng(0))
    feeds = [(s.advantages is not None, s.teacher is not None, s.reference_weight is not None) for s in samples]
    assert feeds[2] == (False, False, False)  # though a sibling's success could be shown to a teacher
    assert all(any(fed[:2]) or algorithm == "sdpo" for i, fed in enumerate(feeds) if i != 2)
    if algorithm == "grpo":
        assert [s.advantages is None for s in samples] == [False, False, True, False]
        assert [float(samples[i].advantages[0]) for i in (0, 1, 3)] == pytest.approx([0.5, -0.5, 0.0])
    metrics = batch_metrics([group], [samples], version=1)
    assert {key: value for key, value in metrics.items() if key.startswith("verdict/")} == {
        "verdict/right": 1, "verdict/wrong": 1, "verdict/no_answer": 1, "verdict/close": 1,
    }  # fmt: skip
    assert metrics["train/pass_rate"] == pytest.approx(1 / 3)  # of those that were graded
    assert ungraded_warning([group]) == (
        "warning: 1 of 4 responses could not be graded and get no reward: the judge is ill"
    )


async def test_an_evaluation_leaves_out_and_counts_what_could_not_be_graded(tokenizer):
    made = generation(recipe_of("grpo"), tokenizer)
    result = count([await made.evaluation_group(TASK, 4)], ks=(1, 3))
    [problem] = result.problems
    assert (problem.n, problem.c, problem.difficulty, result.unjudged) == (3, 1, "easy", 1)
    assert problem.verdicts == {"close": 1, "right": 1, "wrong": 1}
