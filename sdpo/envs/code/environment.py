"""Code with tests: problems in LiveCodeBench's format, programs judged in the sandbox, its words as feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pydantic import Field

from sandbox import Judgement, Limits, Sandbox, Verdict, extract_code
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings, SandboxSettings
from sdpo.envs.base import Dataset, Environment, Inert, Progress, Purpose
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.code.judging import open_sandbox
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.code.problem import Problem, Style
from sdpo.envs.code.published import published_feedback
from sdpo.envs.code.splits import ProblemSet
from sdpo.types import Outcome, Task, Turn

Renderer = Callable[[Judgement], str]
RENDERERS: Mapping[Style, Renderer] = {"published": published_feedback, "compact": compact_feedback}
ROW_FILES = (".jsonl", ".json", ".parquet", ".gz", ".bz2", ".xz", ".zst")  # a folder has no such ending
SANDBOX_OPTIONS = frozenset(f"sandbox.{option}" for option in SandboxSettings.model_fields)


class CodeSettings(EnvironmentSettings):
    style: Style | None = Field(
        None,
        description="how questions and feedback are worded: published (arXiv 2601.20802), or compact, this project's "
        "own short form; null: compact beside context.template=compact, else published",
    )


class CodeEnvironment(Environment):
    """The policy writes a program; it is solved when every test passes; what went wrong is told in words."""

    Settings = CodeSettings
    reads = SANDBOX_OPTIONS | {
        f"data.{option}"
        for option in ("source", "path", "release", "window", "exclude_ungradable", "test_split", "problem_split")
        + ("held_out_fraction", "max_bad_rows")
    }
    inert: ClassVar[Inert] = (
        ("data.release", lambda r: Path(r.data.path or "").suffix in ROW_FILES, "when data.path is a single file"),
        ("data.held_out_fraction", lambda r: r.data.problem_split != "hash", "unless data.problem_split=hash"),
        ("evaluation.training_problems", lambda r: r.data.problem_split == "none", "unless problems are held out"),
    )
    source: ClassVar[str] = "livecodebench"  # what `data.source` calls its rows

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.style: Style = self.settings.style or ("compact" if recipe.context.template == "compact" else "published")
        self._opened: AbstractContextManager[Sandbox] | None = None

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        if recipe.data.source not in (None, cls.source):
            raise ValueError(
                f"data.source={recipe.data.source} is not what environment.kind={recipe.environment.kind} reads; "
                "remove one of the two"
            )

    def __enter__(self) -> Self:
        """Start the sandbox: its server forks best while this process is small, before torch, Ray and vLLM come in."""
        self._opened = open_sandbox(self.recipe)
        self.sandbox = self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.__exit__(kind, error, trace)

    def load(self, progress: Progress | None = None) -> Dataset:
        return self.dataset(self.problems(progress))

    def dataset(self, found: ProblemSet) -> Dataset:
        """Problems as tasks."""
        return Dataset(
            [problem.task(self.style) for problem in found.train],
            [problem.task(self.style) for problem in found.evaluation],
            found.name,
            found.test_split,
            found.problem_split,
            found.report,
        )

    def problems(self, progress: Progress | None = None) -> ProblemSet:
        """The problems behind the tasks."""
        data = self.recipe.data
        return load_livecodebench(
            None if data.path is None else locate(data.path),
            release=data.release,
            window=data.window,
            test_split=data.test_split,
            problem_split=data.problem_split,
            held_out_fraction=data.held_out_fraction if data.problem_split == "hash" else None,
            seed=self.recipe.seed,
            max_bad_rows=data.max_bad_rows,
            exclude_ungradable=data.exclude_ungradable,
            limits=self.limits,
            progress=progress,
        )

    @property
    def limits(self) -> Limits:
        return Limits(cpu_time_s=self.recipe.sandbox.cpu_time_s, memory_mb=self.recipe.sandbox.memory_mb)

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        problem: Problem = task.content
        training = purpose == "training"
        code = extract_code(turn.answer, thinking="official")  # of thoughts it knows already
        judgement = await self.sandbox.ajudge(
            code,
            problem.training_tests if training else problem.evaluation_tests,
            problem.limits,
            files=problem.files,
            stop=self.recipe.sandbox.feedback_from if training else "first_failure",
            truncated=training and turn.truncated,
        )
        return outcome_of(judgement, RENDERERS[self.style], code)


def outcome_of(judgement: Judgement, render: Renderer, code: str | None = None) -> Outcome:
    """Reward 1 where every test passed, else 0; none where the sandbox failed, which says nothing of the program."""
    if judgement.verdict is Verdict.SANDBOX_ERROR:
        return Outcome(None, label=str(judgement.verdict), details={"code": code, "message": judgement.message})
    return Outcome(
        reward=float(judgement.passed),
        solved=judgement.passed,
        feedback=None if judgement.passed else render(judgement),
        label=str(judgement.verdict),
        details={"code": code},
    )
