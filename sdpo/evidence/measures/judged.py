"""Judging many sampled programs, the same one for the same problem once."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox import Job, Judgement, Sandbox, extract_code
from sdpo.types import Problem


def judge(sandbox: Sandbox, problems: Sequence[Problem], texts: Sequence[str], *, training: bool) -> list[Judgement]:
    """Judgements in order, on the training or the evaluation tests."""
    jobs: dict[tuple[str, str | None], Job] = {}
    keys = []
    for problem, text in zip(problems, texts, strict=True):
        key = problem.id, extract_code(text)
        tests = problem.training_tests if training else problem.evaluation_tests
        jobs.setdefault(key, Job(key[1], tests, problem.limits, problem.files))
        keys.append(key)
    judged = dict(zip(jobs, sandbox.judge_many(list(jobs.values())), strict=True))
    return [judged[key] for key in keys]
