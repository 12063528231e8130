"""Sample, judge, count.  Where samples and verdicts come from is the caller's affair."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox import Judgement, Verdict, extract_code
from sdpo.errors import UserError
from sdpo.evaluation.results import EvaluationResult, ProblemResult
from sdpo.types import Problem, Rollout

Generate = Callable[[Problem, int], Awaitable[Sequence[Rollout]]]
Judge = Callable[[Problem, str | None], Awaitable[Judgement]]
_ATTEMPTS = 3  # to judge a sample, where the sandbox itself fails
Progress = Callable[[int, int, int], None]  # samples judged, samples in all, samples that passed


@dataclass(frozen=True)
class Answers:
    """What the policy answered to one problem, and how it was judged, index by index."""

    problem: Problem
    rollouts: tuple[Rollout, ...]
    codes: tuple[str | None, ...]  # None: the response holds no program
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True)
class Evaluation:
    """The numbers, and the answers that they count, both in the order of the problems."""

    result: EvaluationResult
    answers: tuple[Answers, ...]


async def evaluate(
    problems: Sequence[Problem],
    generate: Generate,
    judge: Judge,
    *,
    n: int,
    ks: Sequence[int] = (1,),
    extract: Callable[[Rollout], str | None] = lambda rollout: extract_code(rollout.text, thinking="official"),
    thinking: str = "official",
    sampling: Mapping[str, Any] | None = None,
    dataset: str = "",
    test_split: str = "",
    problem_split: str = "",
    concurrency: int = 64,
    progress: Progress | None = None,
) -> Evaluation:
    """`n` samples of every problem, judged, as pass@k for each of `ks`.

    `generate(problem, n)` returns n rollouts (for greedy decoding n is 1); `judge(problem, code)` runs the evaluation
    tests, all of which have to pass.  `extract(rollout)` finds the program (None: there is none), and `thinking` names
    the rule by which it does, for the results (`evaluation.thinking` of a recipe).  A sample on which the sandbox
    itself fails is judged again; in the end it is left out, as `EvaluationResult.unjudged` says, and so is a problem
    with too few samples left.  At most `concurrency` problems are in flight.  Whatever either raises ends the
    evaluation at once, with that error, after everything still running was cancelled; so does cancelling it.
    """
    if not problems:
        raise UserError("There is no problem to evaluate on.")
    if n < 1 or not ks or min(ks) < 1 or max(ks) > n:
        raise UserError(f"pass@k for k in {list(ks)} cannot be estimated from {n} samples per problem: take 1 ≤ k ≤ n.")
    gate = asyncio.Semaphore(concurrency)
    total, judged, passed = n * len(problems), 0, 0

    async def verdict(problem: Problem, code: str | None) -> Judgement:
        nonlocal judged, passed
        for _ in range(_ATTEMPTS):
            judgement = await judge(problem, code)
            if judgement.verdict is not Verdict.SANDBOX_ERROR:
                break
        judged += 1
        passed += judgement.passed
        if progress:
            progress(judged, total, passed)
        return judgement

    async def answers(problem: Problem) -> Answers:
        async with gate:
            rollouts = tuple(await generate(problem, n))
            if len(rollouts) != n:
                raise ValueError(f"generate returned {len(rollouts)} rollouts for {problem.id}, not {n}")
            codes = tuple(extract(rollout) for rollout in rollouts)
            judgements = await _all([verdict(problem, code) for code in codes])
        return Answers(problem, rollouts, codes, tuple(judgements))

    collected = tuple(await _all([answers(problem) for problem in problems]))
    versions = {rollout.policy_version for given in collected for rollout in given.rollouts}
    counted = [_count(given) for given in collected]
    enough = tuple(problem for problem in counted if problem.n >= max(ks))
    if not enough:
        raise UserError("The sandbox failed on every problem of the evaluation; see `python -m sandbox doctor`.")
    result = EvaluationResult(
        problems=enough,
        unjudged=total - sum(problem.n for problem in enough),
        ks=tuple(ks),
        dataset=dataset,
        test_split=test_split,
        problem_split=problem_split,
        sampling=dict(sampling or {}),
        thinking=thinking,
        policy_version=versions.pop() if len(versions) == 1 else None,
    )
    return Evaluation(result, collected)


async def _all(coroutines: Sequence[Awaitable[Any]]) -> list[Any]:
    """Results in order; the first error cancels the rest and is raised as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


def _count(given: Answers) -> ProblemResult:
    """Of the samples that were judged: a sandbox that broke says nothing about a program."""
    judged = [
        (rollout, judgement)
        for rollout, judgement in zip(given.rollouts, given.judgements, strict=True)
        if judgement.verdict is not Verdict.SANDBOX_ERROR
    ]
    verdicts = Counter(str(judgement.verdict.value) for _, judgement in judged)
    return ProblemResult(
        id=given.problem.id,
        n=len(judged),
        c=sum(judgement.passed for _, judgement in judged),
        difficulty=given.problem.difficulty,
        verdicts=dict(sorted(verdicts.items())),
        truncated=sum(rollout.truncated for rollout, _ in judged),
        response_tokens=sum(len(rollout.response_ids) for rollout, _ in judged) / max(len(judged), 1),
    )
