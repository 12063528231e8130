"""Code with tests: problems with tests of any kind, programs judged in the sandbox, its words as feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pydantic import Field

from sandbox import Judgement, Limits, Sandbox, Verdict, extract_code
from sdpo.config.paths import locate
from sdpo.config.registry import ASSERTION_SOURCES
from sdpo.config.schema import Recipe
from sdpo.config.sections import EnvironmentSettings, SandboxSettings
from sdpo.envs.base import Dataset, Environment, Inert, Progress, Purpose
from sdpo.envs.code.assertion_files import load_assertions
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.code.judging import open_sandbox
from sdpo.envs.code.lcb_export import export_generations
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.code.problem import Problem, Style
from sdpo.envs.code.published import published_feedback
from sdpo.envs.code.splits import ProblemSet
from sdpo.types import Group, Outcome, Task, Turn

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
        *(
            (f"data.{option}", lambda r: r.data.source in ASSERTION_SOURCES, "with rows that are not LiveCodeBench's")
            for option in ("release", "window", "exclude_ungradable")
        ),
        ("data.release", lambda r: Path(r.data.path or "").suffix in ROW_FILES, "when data.path is a single file"),
        ("data.held_out_fraction", lambda r: r.data.problem_split != "hash", "unless data.problem_split=hash"),
        ("evaluation.training_problems", lambda r: r.data.problem_split == "none", "unless problems are held out"),
    )
    sources: ClassVar[tuple[str, ...]] = ("livecodebench", *ASSERTION_SOURCES)  # what `data.source` may call its rows

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.style: Style = self.settings.style or ("compact" if recipe.context.template == "compact" else "published")
        self._opened: AbstractContextManager[Sandbox] | None = None

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        source = recipe.data.source
        if source in ASSERTION_SOURCES and source != "humaneval" and recipe.data.path is None:
            raise ValueError(f"data.source={source} needs a file or folder of its rows: set data.path")
        if source not in (None, *cls.sources):
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
        if data.source is not None and data.source in ASSERTION_SOURCES:
            return load_assertions(
                data.source,
                None if data.path is None else locate(data.path),
                test_split=data.test_split,
                problem_split=data.problem_split,
                held_out_fraction=data.held_out_fraction if data.problem_split == "hash" else None,
                seed=self.recipe.seed,
                max_bad_rows=data.max_bad_rows,
                limits=self.limits,
                progress=progress,
            )
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

    def export(self, groups: Sequence[Group], folder: Path) -> str:
        if self.recipe.data.source in ASSERTION_SOURCES:
            return ""
        export_generations(folder / "generations.json", groups)
        return f"{folder}/generations.json for LiveCodeBench's custom evaluator"

    async def grade(self, task: Task, turn: Turn, purpose: Purpose) -> Outcome:
        problem: Problem = task.content
        training = purpose == "training"
        code = extract_code(turn.answer, thinking="official")  # of thoughts it knows already
        program = problem.program(code)
        judgement = await self.sandbox.ajudge(
            program.source,
            problem.training_tests if training else problem.evaluation_tests,
            problem.limits,
            files=problem.files,
            stop=self.recipe.sandbox.feedback_from if training else "first_failure",
            truncated=training and turn.truncated,
        )
        return outcome_of(program.in_its_own_lines(judgement), RENDERERS[self.style], code)


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
