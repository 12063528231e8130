"""Skills learned one after the other, for the question what a policy forgets when it learns something new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from sdpo.config.schema import Recipe
from sdpo.envs.base import Dataset, Progress
from sdpo.envs.code.environment import CodeSettings
from sdpo.envs.code.lcb_rows import LCBRow
from sdpo.envs.code.splits import ProblemSet
from sdpo.envs.minicode import FAMILIES, MinicodeEnvironment, load_minicode
from sdpo.envs.minicode.load import read_rows
from sdpo.envs.minicode.rows import task_rows
from sdpo.envs.minicode.world import make_known_tasks
from sdpo.types import Task

TITLES = {"minicode": "lists", "minicode-texts": "texts"}  # what a family's metrics are called
KNOWN = "known_words"  # what those of problems of English words are called


class SequenceSettings(CodeSettings):
    families: tuple[Literal["minicode", "minicode-texts"], ...] = Field(
        min_length=2, description="skills learned one after the other, an equal share of the steps each"
    )
    known_problems: int = Field(
        0, ge=0, description="of each family, problems of English words, which the policy solves before training: they "
        "are measured, never learned"
    )  # fmt: skip


@dataclass(frozen=True)
class Sequential(Dataset):
    """Datasets that are learned one after the other; each is measured apart."""

    parts: dict[str, Dataset] = field(default_factory=dict)
    known: list[Task] = field(default_factory=list)

    def training(self, progress: float) -> Sequence[Task]:
        parts = list(self.parts.values())
        return parts[min(int(progress * len(parts)), len(parts) - 1)].train

    def evaluation_sets(self, training_problems: bool) -> dict[str, list[Task]]:
        sets = {
            f"{name}_{kind}": tasks
            for name, part in self.parts.items()
            for kind, tasks in part.evaluation_sets(training_problems).items()
        }
        return sets | ({KNOWN: self.known} if self.known else {})


class MinicodeSequence(MinicodeEnvironment):
    """minicode's families in sequence: `environment: {kind: "studies.sequence:MinicodeSequence", families: […]}`."""

    Settings = SequenceSettings

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        super().check(recipe)
        families = recipe.environment.families
        if len(set(families)) < len(families) or recipe.run.steps < len(families):
            raise ValueError("environment.families names each skill once, and run.steps has a step for each of them")

    def load(self, progress: Progress | None = None) -> Dataset:
        parts = {TITLES[name]: self.dataset(self._family(name)) for name in self.settings.families}
        first = next(iter(parts.values()))
        return Sequential(
            train=[task for part in parts.values() for task in part.train],
            evaluation=[task for part in parts.values() for task in part.evaluation],
            name=", then ".join(part.name for part in parts.values()),
            test_split=first.test_split,
            problem_split=first.problem_split,
            report=first.report,
            parts=parts,
            known=self._known() if self.settings.known_problems else [],
        )

    def _known(self) -> list[Task]:
        """Problems of English words."""
        rows: list[LCBRow] = []
        for family in (FAMILIES[name] for name in self.settings.families):
            tasks = make_known_tasks(self.world, self.settings.known_problems, family)
            rows += task_rows(f"known-{family.name}-{self.world}", tasks, ())
        return [problem.task(self.style) for problem in read_rows(rows)[0]]

    def _family(self, name: str) -> ProblemSet:
        test_split = self.recipe.data.test_split
        return load_minicode(self.world, family=FAMILIES[name], test_split=test_split, limits=self.limits)
