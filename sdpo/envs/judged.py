"""Environments whose grading runs in worker processes: a library may be slow, hang or fall on what a policy wrote."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import Field

from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings
from sdpo.envs.base import Environment
from sdpo.envs.workers.pool import Reply, WorkerPool


class JudgedSettings(EnvironmentSettings):
    workers: int | None = Field(None, ge=1, description="processes that grade; null: one per core")
    time_limit_s: float = Field(10.0, gt=0, description="for grading one answer")


class JudgedEnvironment(Environment):
    """Grades with `judge`, a function of this package named as `module:function`, whose results are JSON."""

    Settings: ClassVar[type[EnvironmentSettings]] = JudgedSettings
    judge: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._pool = WorkerPool(
            self.judge,
            option=f"environment.kind={recipe.environment.kind}",
            time_limit_s=self.settings.time_limit_s,
            workers=self.settings.workers,
        )

    def __enter__(self) -> Self:
        self._pool.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    async def ask(self, *arguments: Any) -> Reply:
        """What `judge` makes of the arguments, or why it made nothing; a pool that is not open yet is opened."""
        return await self._pool.call(*arguments)
