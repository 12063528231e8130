"""The sandbox of a run, and many sampled programs judged at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sandbox import Job, Judgement, Sandbox, SandboxError, extract_code
from sdpo.config.schema import Recipe
from sdpo.envs.code.problem import Problem
from sdpo.errors import UserError


@contextmanager
def open_sandbox(recipe: Recipe) -> Iterator[Sandbox]:
    """A sandbox with the recipe's workers and isolation.  Raises UserError where it cannot start, or breaks down.

    Its server is started while this process is small, before torch, Ray and vLLM come in.
    """
    settings = recipe.sandbox
    workers = settings.workers or os.cpu_count()
    try:
        with Sandbox(workers=workers, isolation=settings.isolation, outer=settings.outer) as sandbox:
            yield sandbox
    except SandboxError as error:
        raise UserError(
            f"The sandbox: {error} See `python -m sandbox doctor` and the option sandbox.isolation."
        ) from error


def judge_responses(
    sandbox: Sandbox, problems: Sequence[Problem], texts: Sequence[str], *, training: bool
) -> list[Judgement]:
    """Judgements in order, on the training or the evaluation tests; one program for one problem is run once."""
    jobs: dict[tuple[str, str | None], Job] = {}
    keys = []
    for problem, text in zip(problems, texts, strict=True):
        key = problem.id, extract_code(text)
        tests = problem.training_tests if training else problem.evaluation_tests
        jobs.setdefault(key, Job(problem.program(key[1]).source, tests, problem.limits, problem.files))
        keys.append(key)
    judged = dict(zip(jobs, sandbox.judge_many(list(jobs.values())), strict=True))
    return [judged[key] for key in keys]
