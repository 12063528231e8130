"""A reward of one's own: `reward(task, response)` in worker processes, rows from anywhere.

    environment: {kind: function, reward: "my_module:reward"}

The function returns a number, a pair of a number and words for the teacher (or None), or an `Outcome`; it may be
async.  What it does wrong costs that one response its reward, is counted by kind, and is shown once per kind.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Self

from pydantic import Field, field_validator

from sdpo.config import registry
from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings
from sdpo.config.terminal import say
from sdpo.envs.base import Dataset, Environment, Inert, Progress, Purpose
from sdpo.envs.rewards import NONSENSE
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, check_rows, load_rows
from sdpo.envs.workers.pool import Reply, WorkerPool
from sdpo.types import Outcome, Task, Turn

LABELS: Mapping[str, str] = {
    "timeout": "reward timeout",
    "error": "reward error",
    "crash": "reward crash",
    "nonsense": NONSENSE,
    "output": "reward output",
    "processes": "reward processes",
}


class FunctionSettings(EnvironmentSettings):
    reward: str = Field(description="reward(task, response), as module:function or path.py:function")
    workers: int | None = Field(None, ge=1, description="calls at a time; those that only wait are beside; null: cores")
    time_limit_s: float = Field(10.0, gt=0, description="of one call; then its process is killed")
    solved_from: float = Field(1.0, description="the reward from which a response counts as solved")

    @field_validator("reward")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        if not registry.is_reference(value):
            raise ValueError(f"{value!r} names no function; give module:function or path.py:function")
        return value


class FunctionEnvironment(Environment):
    """Tasks of the section `data`, graded by a function of the user's own."""

    Settings = FunctionSettings
    reads = ROW_OPTIONS
    inert: ClassVar[Inert] = ROW_INERT

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        settings = self.settings
        self.pool = WorkerPool(
            settings.reward,
            option="environment.reward",
            workers=settings.workers,
            time_limit_s=settings.time_limit_s,
            adapter="sdpo.envs.rewards:reward_of",
        )
        self.failures: Counter[str] = Counter()  # by label
        self._shown: set[str] = set()
        self._opened = False

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        check_rows(recipe)

    def __enter__(self) -> Self:
        self.pool.start()
        self._opened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.close()

    def load(self, progress: Progress | None = None) -> Dataset:
        if not self._opened:  # a plan: whether the function is there belongs to it
            self.pool.start()
            self.pool.close()
        return load_rows(self.recipe, progress=progress)

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        reply = await self.pool.call(task, turn.answer)
        if reply.output:
            self._show("printed", "The reward function printed", reply.output)
        return self._outcome(reply)

    def _outcome(self, reply: Reply) -> Outcome:
        if reply.kind != "value":
            label = LABELS[reply.kind]
            self.failures[label] += 1
            self._show(label, f"The reward function failed ({label}: {reply.message})", reply.traceback)
            return Outcome(None, label=label, details={"message": f"{label}: {reply.message}"})
        made = reply.value
        solved = made["solved"] if made["solved"] is not None else made["reward"] >= self.settings.solved_from
        return Outcome(
            reward=made["reward"],
            solved=solved,
            feedback=made["feedback"],
            label=made["label"] or ("solved" if solved else "not solved"),
            details=made["details"],
        )

    def _show(self, kind: str, said: str, more: str) -> None:
        """Once per kind; how often it happened is counted in the metrics."""
        if kind not in self._shown:
            self._shown.add(kind)
            text = f"{said}; shown once:\n{more}" if more else f"{said}; shown once."
            say(text.rstrip(), sys.stderr)
