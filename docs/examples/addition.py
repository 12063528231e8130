"""The sum of two numbers: an environment that is not code, graded by a function that says what is wrong.

Run it with `PYTHONPATH=docs/examples sdpo train docs/examples/addition.yaml`.
"""

import random
import re

from pydantic import Field

from sdpo.config.sections import EnvironmentSettings
from sdpo.envs import Dataset, Environment
from sdpo.types import Outcome, Task


class Addition(Environment):
    draws_by_seed = True

    class Settings(EnvironmentSettings):
        largest: int = Field(99, ge=4, description="of the two numbers")
        tasks: int = Field(64, ge=1, description="to train on")
        held_out: int = Field(32, ge=1, description="to evaluate on")

    @classmethod
    def check(cls, recipe):
        wanted, there = recipe.environment.tasks + recipe.environment.held_out, (recipe.environment.largest + 1) ** 2
        if wanted > there:
            raise ValueError(f"there are {there} sums up to environment.largest, not {wanted}")

    def load(self, progress=None):
        size = self.settings.largest + 1
        numbers = random.Random(self.recipe.seed).sample(range(size**2), self.settings.tasks + self.settings.held_out)
        tasks = [self._task(*divmod(number, size)) for number in numbers]
        return Dataset(tasks[: self.settings.tasks], tasks[self.settings.tasks :], "addition")

    def _task(self, a, b):
        question = f"What is {a} + {b}?"
        return Task(f"{a}+{b}", ({"role": "user", "content": question},), content=a + b, solution=str(a + b))

    async def grade(self, task, turn, purpose):
        return reward(task.content, turn.answer)


def reward(wanted, answer):
    """The last number counts; a near miss is worth something, and is told how near it was."""
    numbers = re.findall(r"-?\d{1,9}", answer)
    if not numbers:
        return Outcome(0.0, feedback="There is no number in your answer.", label="no number")
    miss = int(numbers[-1]) - wanted
    if miss == 0:
        return Outcome(1.0, solved=True, label="right")
    told = f"Your answer {numbers[-1]} is too {'large' if miss > 0 else 'small'} by {abs(miss)}."
    return Outcome(1 / (1 + abs(miss)), feedback=told, label="wrong number")
