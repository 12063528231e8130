"""What an environment is: where tasks come from, what the policy is shown, and what its answer was worth.

Everything else is blind to what a task is about.  An environment of one's own subclasses `Environment`, says where its
tasks come from (`load`) and what an answer is worth (`grade`), and is named in a recipe as
`environment: {kind: "module:Class"}`.  One that has more to say than feedback also says what comes next (`respond`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings
from sdpo.envs.report import DataReport
from sdpo.types import Group, Message, Outcome, Task, Turn

Purpose = Literal["training", "evaluation"]
Inert = tuple[tuple[str, Callable[[Recipe], bool], str], ...]  # (option, when it does nothing, how that is said)
Progress = Callable[[str, int, int], None]  # what is read, how far, of how much

# How a failed attempt is answered, in the words of `context.template` (this project's own).
_REPLIES: Mapping[str, str] = {"compact": "\nFeedback:\n{feedback}"}
_REPLY = (
    "The following is feedback from your unsuccessful attempt:\n\n{feedback}\n\n"
    "Correctly solve the original question.\n"
)


@dataclass(frozen=True)
class Dataset:
    """Tasks to train on and tasks to evaluate on, and the names of what decided it."""

    train: list[Task]
    evaluation: list[Task]
    name: str
    test_split: str = ""
    problem_split: str = ""
    report: DataReport = field(default_factory=DataReport)

    @property
    def held_out(self) -> bool:
        """Whether what is evaluated is not trained on."""
        return {task.id for task in self.train}.isdisjoint(task.id for task in self.evaluation)

    def training(self, progress: float) -> Sequence[Task]:
        """What is trained on when this share of the run is done; a curriculum overrides it."""
        return self.train

    def evaluation_sets(self, training_problems: bool) -> dict[str, list[Task]]:
        """What is measured, by name; the first one decides which checkpoint is the best."""
        sets = {"held_out" if self.held_out else "test": self.evaluation}
        return sets | ({"train": self.train} if self.held_out and training_problems else {})


class Environment(ABC):
    """Built once per run, and used as a context: what it needs beside the recipe is opened and closed with the run.

    `Settings` are its own options, validated with the recipe's section `environment`.  `reads` are the options of the
    sections `data` and `sandbox` that mean something to it; others are refused.  `inert` are options that another
    setting makes meaningless: (option, when, how that is said).  `draws_by_seed`: its tasks are others for each seed.
    """

    Settings: ClassVar[type[EnvironmentSettings]] = EnvironmentSettings
    reads: ClassVar[frozenset[str]] = frozenset()
    inert: ClassVar[Inert] = ()
    draws_by_seed: ClassVar[bool] = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings: Any = recipe.environment

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raises ValueError where the recipe contradicts what the environment needs."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def load(self, progress: Progress | None = None) -> Dataset:
        """The tasks of the recipe, with a report of what was left out.  Raises UserError for what the user can mend."""

    def export(self, groups: Sequence[Group], folder: Path) -> str:
        """Writes what others can read of an evaluation into its folder; returns what it wrote, for the user, or ""."""
        return ""

    @abstractmethod
    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        """What the answer `turn.answer` is worth.  Called for many turns at once; it must not block the loop.

        purpose: training gives reward and feedback; evaluation measures, perhaps by tests of its own.
        """

    async def respond(self, task: Task, turns: Sequence[Turn], purpose: Purpose) -> Outcome:
        """What the last of `turns` was worth, and the reply to it; `turns` are all of the rollout so far.

        Nothing may be remembered between calls: an environment with a state replays the earlier turns, so that a turn
        can be asked for again.  Here a failed attempt that has feedback is answered with it (`reply`), until there
        were as many turns as a rollout may have.  An evaluation's reply is the feedback of training: by what is
        measured with, nothing may be told.
        """
        outcome = await self.grade(task, turns[-1], purpose)
        if outcome.solved or outcome.reward is None or outcome.reply or len(turns) >= self.recipe.turns(purpose):
            return outcome
        told = outcome if purpose == "training" else await self.grade(task, turns[-1], "training")
        return replace(outcome, reply=self.reply(told.feedback)) if told.feedback else outcome

    def reply(self, feedback: str) -> tuple[Message, ...]:
        """What the policy is told after a failed attempt."""
        words = _REPLIES.get(self.recipe.context.template, _REPLY)
        return ({"role": "user", "content": words.format(feedback=feedback)},)
