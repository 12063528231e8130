"""What an environment is: where tasks come from, what the policy is shown, and what its answer was worth.

Everything else is blind to what a task is about.  An environment of one's own subclasses `Environment`, says where its
tasks come from (`load`) and what an answer is worth (`grade`), and is named in a recipe as
`environment: {kind: "module:Class"}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings
from sdpo.envs.report import DataReport
from sdpo.types import Outcome, Task, Turn

Purpose = Literal["training", "evaluation"]
Inert = tuple[tuple[str, Callable[[Recipe], bool], str], ...]  # (option, when it does nothing, how that is said)
Progress = Callable[[str, int, int], None]  # what is read, how far, of how much


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
    setting makes meaningless: (option, when, how that is said).
    """

    Settings: ClassVar[type[EnvironmentSettings]] = EnvironmentSettings
    reads: ClassVar[frozenset[str]] = frozenset()
    inert: ClassVar[Inert] = ()

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

    @abstractmethod
    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        """What the answer `turn.answer` is worth.  Called for many turns at once; it must not block the loop.

        purpose: training gives reward and feedback; evaluation measures, perhaps by tests of its own.
        """
