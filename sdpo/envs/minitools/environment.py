"""minitools as an environment: one call for each turn, answered by the simulated service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdpo.envs.base import Dataset, Environment, Progress, Purpose
from sdpo.envs.minitools.service import Request, converse
from sdpo.envs.minitools.world import make_world
from sdpo.types import Outcome, Task, Turn


class MinitoolsEnvironment(Environment):
    """Requests of one step; with several turns also those of two."""

    reads = frozenset({"data.source", "data.world_seed"})

    def load(self, progress: Progress | None = None) -> Dataset:
        world = make_world(self.recipe.data.world_seed)
        several = self.settings.turns > 1
        return Dataset(
            _tasks(f"{world.name}-train", (*world.train, *(world.train_two_steps if several else ()))),
            _tasks(f"{world.name}-heldout", (*world.held_out, *(world.held_out_two_steps if several else ()))),
            world.name,
            problem_split="marked",
        )

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        return converse(task.content, [turn.answer])

    async def respond(self, task: Task, turns: Sequence[Turn], purpose: Purpose) -> Outcome:
        return converse(task.content, [turn.answer for turn in turns])


def _tasks(name: str, requests: Iterable[Request]) -> list[Task]:
    return [task_of(f"{name}-{number:03d}", request) for number, request in enumerate(requests)]


def task_of(identity: str, request: Request) -> Task:
    difficulty = "two steps" if len(request.steps) > 1 else "easy" if request.unknown == 1 else "hard"
    message = {"role": "user", "content": request.statement}
    return Task(identity, (message,), content=request, solution=request.solution, difficulty=difficulty)
