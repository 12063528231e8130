"""Where the text comes from that a teacher is told, or that a policy imitates.

A source is a function of a group, the index of a response in it and a random generator; it returns a text, or None
where it has nothing to tell.  Ground truth (`reference_solution`, `dataset_column`) is a source like the others, and no
default: it reaches a teacher only where a recipe names it (`context.demonstration`), a policy only as `rollout.source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from sandbox import Judgement, Verdict
from sdpo.errors import UserError
from sdpo.types import Group, Problem


class Source(Protocol):
    def __call__(self, group: Group, index: int, rng: np.random.Generator) -> str | None: ...


def nothing(group: Group, index: int, rng: np.random.Generator) -> None:
    return None


def sibling_success(group: Group, index: int, rng: np.random.Generator) -> str | None:
    """Another response of the group that passed, uniformly at random; never the response itself (SDPO)."""
    others = [i for i, judgement in enumerate(group.judgements) if judgement.passed and i != index]
    return group.rollouts[others[rng.integers(len(others))]].text if others else None


def environment_feedback(render: Callable[[Judgement], str]) -> Source:
    """What the environment said about the response itself, if it failed by its own fault."""

    def source(group: Group, index: int, rng: np.random.Generator) -> str | None:
        judgement = group.judgements[index]
        # A sandbox that broke says nothing about the program, so its text must not teach.
        if judgement.passed or judgement.verdict == Verdict.SANDBOX_ERROR:
            return None
        return render(judgement)

    return source


TextOf = Callable[[Problem], str | None]


def reference_solution(problem: Problem) -> str | None:
    """The problem's reference program (`metadata.solution` of its row), as a response would give it."""
    return None if problem.solution is None else f"```python\n{problem.solution}\n```"


def dataset_column(name: str) -> TextOf:
    """A text that the problem's row carries under this name (`Problem.columns`)."""
    return lambda problem: problem.columns.get(name)


def of_problem(text: TextOf) -> Source:
    """A source that is the same for every response to a problem."""
    return lambda group, index, rng: text(group.problem)


def dataset_text(kind: str, column: str | None) -> TextOf:
    """`kind`: "solution" or "column", as `context.demonstration` and `rollout.source` name them."""
    return reference_solution if kind == "solution" else dataset_column(column or "")


def demonstrations(kind: str, column: str | None) -> Source:
    """The source that `context.demonstration` names."""
    if kind in ("solution", "column"):
        return of_problem(dataset_text(kind, column))
    return {"random": sibling_success, "none": nothing}[kind]


def check_texts(problems: Sequence[Problem], kind: str, column: str | None, option: str, every: bool = False) -> None:
    """Raises UserError where a source of the dataset has nothing for any problem, or, with `every`, for one of them."""
    text = dataset_text(kind, column)
    have = sum(text(problem) is not None for problem in problems)
    if have == 0 or (every and have < len(problems)):
        what = "reference solution (metadata.solution)" if kind == "solution" else f"column {column!r}"
        raise UserError(
            f"{option}={kind}, but {have or 'none'} of the {len(problems)} training problems "
            f"{'have' if have > 1 else 'has'} a {what}. Give rows that have one (data.path), or choose another source."
        )
