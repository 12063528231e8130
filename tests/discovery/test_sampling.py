"""Searches that leave the policy as it is: what is told, what is counted, and when they end."""

from __future__ import annotations

import re

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.discovery.sampling import best_of_k, hardness, multi_turn, told
from sdpo.envs import Dataset, Environment
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.types import Outcome, Task
from tests.helpers.policy import ScriptedPolicy

QUESTION = Task("guess", ({"role": "user", "content": "Guess a number."},), content=5)


class Guessing(Environment):
    """Solved by the number; the feedback names the guess.  The tests that measure accept no guess."""

    def load(self, progress=None):
        return Dataset([QUESTION], [QUESTION], "guess")

    async def grade(self, task, turn, purpose):
        right = turn.text == str(task.content) and purpose == "training"
        return Outcome(float(right), right, None if right else f"{turn.text} is wrong.")


def generation_of(tokenizer, answer, *overrides):
    recipe = load_recipe(
        find_recipe("discover-livecodebench", "sdpo"), "cpu",
        ("context.template=published", "rollout.responses=4", "context.max_reprompt_tokens=512", *overrides),
    )  # fmt: skip
    contexts = ContextBuilder(tokenizer, recipe.context)
    return Generation(recipe, Guessing(recipe), contexts, tokenizer, ScriptedPolicy(tokenizer, answer))


def counting():
    """Answers 0, 1, 2, … whatever is asked, and the prompts that it saw."""
    prompts: list[str] = []

    async def answer(prompt, i):
        prompts.append(prompt)
        return str(len(prompts) - 1)

    return answer, prompts


async def test_many_turns_end_with_the_first_success_and_count_what_is_left(tokenizer):
    answer, prompts = counting()
    done: list[int] = []
    found = await multi_turn(generation_of(tokenizer, answer), QUESTION, 20, 0, done.append)
    assert (found.attempts, found.solved, found.solution.text) == (6, 1, "5") and not found.solution.confirmed
    assert sum(done) == 20 and found.response_tokens == 6
    assert "is wrong" not in prompts[0]
    assert re.findall(r"(\d) is wrong", prompts[5]) == ["0", "1", "2", "3", "4"]


async def test_without_a_success_a_search_ends_with_the_budget(tokenizer):
    answer, _ = counting()
    found = await multi_turn(generation_of(tokenizer, answer), QUESTION, 3, 0, lambda n: None)
    assert (found.attempts, found.solved, found.solution) == (3, 0, None)


def test_the_oldest_feedback_makes_room_and_is_forgotten(tokenizer):
    generation = generation_of(tokenizer, None)
    said = [f"{number} is wrong. {'x' * 90}" for number in range(6)]
    text = tokenizer.decode(told(generation, QUESTION, said))
    left = re.findall(r"(\d) is wrong", text)
    assert 1 < len(left) < 6 and left == [str(n) for n in range(6 - len(left), 6)]
    assert [each[0] for each in said] == left
    alone = ["y" * 3000]
    assert "[... cut]" in tokenizer.decode(told(generation, QUESTION, alone)) and len(alone) == 1
    assert told(generation, QUESTION, []) == generation.contexts.prompt(QUESTION)


@pytest.mark.parametrize("budget", [4, 10])
async def test_independent_samples_are_all_drawn_and_all_count(tokenizer, budget):
    async def answer(prompt, i):
        return str(4 + i)  # of every four the second one is right

    generation = generation_of(tokenizer, answer)
    found = await best_of_k(generation, QUESTION, budget, 0, lambda n: None)
    assert (found.attempts, found.solved) == (budget, {4: 1, 10: 3}[budget])
    drawn = {seed for _, _, seed in generation.pool.asked}
    assert len(drawn) == len(generation.pool.asked) == {4: 1, 10: 3}[budget]
    before = await hardness(generation, QUESTION, budget, 0)
    assert (before.samples, before.solved) == (budget, found.solved)
    assert drawn.isdisjoint({seed for _, _, seed in generation.pool.asked[len(drawn) :]})  # other samples
