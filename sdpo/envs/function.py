"""A reward of one's own: `reward(task, response)` in worker processes, rows from anywhere.

    environment: {kind: function, reward: "my_module:reward"}

The function returns a number, a pair of a number and words for the teacher (or None), or an `Outcome`; it may be
async.  What it does wrong costs that one response its reward, is counted by kind, and is shown once per kind.
"""

from __future__ import annotations

import math
import numbers
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator

from sdpo.config import registry
from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings
from sdpo.envs.base import Dataset, Environment, Inert, Progress, Purpose
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, check_rows, load_rows
from sdpo.envs.workers import Nonsense, Reply, WorkerPool
from sdpo.types import Outcome, Task, Turn

LABELS: Mapping[str, str] = {
    "timeout": "reward timeout",
    "error": "reward error",
    "crash": "reward crash",
    "nonsense": "reward nonsense",
}
MAX_FEEDBACK = 4000  # characters
MAX_LABEL = 40
MAX_REWARD = 1e9  # beyond, squares of single-precision numbers come near their end


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
            adapter="sdpo.envs.function:reward_of",
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
            print(text.rstrip(), file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------ in a worker


def reward_of(function: Callable[..., Any], task: Task, response: str) -> Any:
    """What the function returns, as JSON; a coroutine where the function is async.  Raises Nonsense."""
    value = function(task, response)
    return _later(value) if hasattr(value, "__await__") else as_json(value)


async def _later(value: Any) -> dict[str, Any]:
    return as_json(await value)


def as_json(value: Any) -> dict[str, Any]:
    """A number, (number, feedback) or Outcome, checked.  `solved` is None where the threshold decides."""
    if isinstance(value, Outcome):
        reward = None if value.reward is None else _number(value.reward)
        label = "".join(filter(str.isprintable, str(value.label)))[:MAX_LABEL]
        made = {"solved": bool(value.solved), "label": label, "details": _clean(dict(value.details))}
        return {"reward": reward, "feedback": _words(value.feedback), **made}
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise Nonsense(f"it returned {len(value)} values; expected are a number, or a number and its feedback")
        reward, feedback = value
    else:
        reward, feedback = value, None
    return {"reward": _number(reward), "feedback": _words(feedback), "solved": None, "label": "", "details": {}}


def _number(value: Any) -> float:
    if hasattr(value, "item") and not isinstance(value, numbers.Number):  # a 0-dimensional array or tensor
        try:
            value = value.item()
        except Exception as error:
            raise Nonsense(f"its reward is no single number ({error})") from None
    if not isinstance(value, numbers.Real):
        raise Nonsense(f"its reward is a {type(value).__name__} ({reprlib.repr(value)}), not a number")
    try:
        number = float(value)
    except OverflowError:
        raise Nonsense("its reward is too large for a number") from None
    if not math.isfinite(number):
        raise Nonsense(f"its reward is {number}")
    if abs(number) > MAX_REWARD:
        raise Nonsense(f"its reward is {number:g}; at most {MAX_REWARD:g} is accepted, above and below zero")
    return number


def _words(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise Nonsense(f"its feedback is a {type(value).__name__}, not a text")
    return _clean(value if len(value) <= MAX_FEEDBACK else f"{value[:MAX_FEEDBACK]} …")


def _clean(value: Any) -> Any:
    """Texts without half characters (lone surrogates), which neither tokenizers nor files take."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
