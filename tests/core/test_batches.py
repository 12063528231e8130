"""Which groups a run samples: tasks and seeds by their number, in both modes; what a run that goes on makes again."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import Dataset, Environment
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.training.batches import Batches
from sdpo.training.checkpoints import TrainerState
from sdpo.types import Outcome, Task
from tests.helpers.policy import ScriptedPolicy

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

TASKS = [Task(f"t{i}", ({"role": "user", "content": f"Say {i}."},), content=f"{i}") for i in range(5)]
DATASET = Dataset(TASKS, TASKS, "numbers")
QUESTIONS, RESPONSES, STEPS = 3, 2, 6
CONTINUOUS = ("rollout.mode=continuous", "rollout.staleness=2")


class Numbers(Environment):
    def load(self, progress=None):
        return DATASET

    async def grade(self, task, turn, purpose):
        return Outcome(float(turn.text == task.content), turn.text == task.content, label="graded")


class Sampled:
    """Batches of a recipe, from responses that wait where their prompt is in `held`."""

    def __init__(self, tokenizer, *overrides, state=None):
        common = (f"run.questions={QUESTIONS}", f"rollout.responses={RESPONSES}", f"run.steps={STEPS}")
        published = ("context.template=published", "context.max_prompt_tokens=256")
        self.recipe = load_recipe(find_recipe("livecodebench", "grpo"), "cpu", (*common, *published, *overrides))
        self.free = {task.id: asyncio.Event() for task in TASKS}
        for event in self.free.values():
            event.set()
        contexts = ContextBuilder(tokenizer, self.recipe.context)
        self.policy = ScriptedPolicy(tokenizer, self.answer)
        generation = Generation(self.recipe, Numbers(self.recipe), contexts, tokenizer, self.policy)
        self.batches = Batches(self.recipe, DATASET, generation, True, state or TrainerState())

    async def answer(self, prompt, i):
        task = next(task for task in TASKS if task.messages[0]["content"] in prompt)
        await self.free[task.id].wait()
        return str(task.content)

    async def take(self, step):
        """Ids of the tasks that a step learns from; everything is graded."""
        pending = await asyncio.wait_for(self.batches.take(step, lambda done: None), 20)
        groups = [await group.graded() for group in pending]
        assert all(group.graded.all() and len(group.rollouts) == RESPONSES for group in groups)
        return [group.task.id for group in groups]

    @property
    def seeds(self):
        return sorted(seed for _, _, seed in self.policy.asked)


def drawn(seed: int) -> list[str]:
    """Permutations of the tasks, one after the other, and a batch from every few."""
    orders = [np.random.default_rng([seed, epoch]).permutation(len(TASKS)) for epoch in range(4)]
    return [TASKS[i].id for order in orders for i in order][: QUESTIONS * STEPS]


@pytest.mark.parametrize("overrides", [(), ("rollout.staleness=1",), CONTINUOUS])
async def test_a_run_samples_the_same_tasks_with_the_same_seeds_in_either_mode(overrides, tokenizer):
    found, synchronous = Sampled(tokenizer, *overrides), Sampled(tokenizer)
    tasks = [await found.take(step) for step in range(1, STEPS + 1)]
    for step in range(1, STEPS + 1):
        await synchronous.take(step)
    assert sorted(sum(tasks, [])) == sorted(drawn(0)) and found.seeds == synchronous.seeds
    assert len(set(found.seeds)) == QUESTIONS * STEPS
    if overrides != CONTINUOUS:
        assert sum(tasks, []) == drawn(0)
    assert found.batches.unfinished(STEPS) == 0 and found.batches.unlearned(STEPS) == []


async def test_what_has_begun_and_is_not_learned_from_is_counted(tokenizer):
    ahead = Sampled(tokenizer, "rollout.staleness=1")
    await ahead.take(1)
    assert ahead.batches.unfinished(1) == QUESTIONS * RESPONSES and ahead.batches.unlearned(1) == []
    assert ahead.batches.unfinished(0) == 2 * QUESTIONS * RESPONSES  # the first step is not done yet
    await ahead.batches.close()
    continuous = Sampled(tokenizer, *CONTINUOUS)
    order = drawn(0)
    continuous.free[order[1]].clear()
    assert await continuous.take(1) == [order[0], order[2], order[3]]
    await asyncio.sleep(0.01)
    begun = continuous.batches.unlearned(0)
    assert set(begun) - set(continuous.batches.unlearned(1)) == {0, 2, 3} and 1 in begun
    assert continuous.batches.unfinished(1) == RESPONSES * len(continuous.batches.unlearned(1))
    await continuous.batches.close()


@pytest.mark.parametrize("then", [CONTINUOUS, ()])
async def test_a_run_that_goes_on_learns_from_what_was_left_behind_and_from_nothing_twice(then, tokenizer):
    """Also where it goes on batch by batch (a fork)."""
    order = drawn(0)
    first = Sampled(tokenizer, *CONTINUOUS)
    first.free[order[1]].clear()
    learned = await first.take(1)
    await asyncio.sleep(0.01)
    left = first.batches.unlearned(1)
    assert left[0] == 1
    await first.batches.close()
    seeds = first.seeds
    second = Sampled(tokenizer, *then, state=TrainerState(step=1, unlearned=left))
    assert second.batches.unlearned(1) == left  # before anything has begun
    for step in range(2, STEPS + 1):
        learned += await second.take(step)
        assert second.batches.unlearned(step) == [] if step == STEPS else True
    assert sorted(learned) == sorted(order)
    again = [seed for seed in second.seeds if seed in seeds]
    assert len(again) == len(left) and len(set(seeds) | set(second.seeds)) == QUESTIONS * STEPS


async def test_a_stop_while_nothing_is_learned_yet_keeps_all_that_was_taken(tokenizer):
    sampled = Sampled(tokenizer, *CONTINUOUS)
    await sampled.take(1)
    await sampled.take(2)
    assert set(sampled.batches.unlearned(1)) > set(sampled.batches.unlearned(2))
    assert len(sampled.batches.unlearned(1)) == len(sampled.batches.unlearned(2)) + QUESTIONS
    await sampled.batches.close()
