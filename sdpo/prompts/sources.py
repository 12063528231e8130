"""Where the text comes from that a teacher is told, or that a policy imitates.

A source is a function of a group, the index of a response in it and a random generator; it returns a text, or None
where it has nothing to tell.  Ground truth (`reference_solution`, `dataset_column`) is a source like the others, and no
default: it reaches a teacher only where a recipe names it (`context.demonstration`), a policy only as `rollout.source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from sdpo.errors import UserError
from sdpo.types import Group, Outcome, Rollout, Task


class Source(Protocol):
    def __call__(self, group: Group, index: int, rng: np.random.Generator) -> str | None: ...


_NOBODY = -1  # the index of no response: none is left out as its own


def nothing(group: Group, index: int, rng: np.random.Generator) -> None:
    return None


def sibling_success(group: Group, index: int, rng: np.random.Generator) -> str | None:
    """Another rollout's response that solved the task, uniformly at random; never the rollout's own (SDPO)."""
    others = [i for i, rollout in enumerate(group.rollouts) if rollout.solved and i != index]
    return group.rollouts[others[rng.integers(len(others))]].last.text if others else None


def sibling_failures(group: Group, index: int) -> list[Rollout]:
    """The other rollouts that were graded and did not solve the task; never the rollout's own."""
    return [r for i, r in enumerate(group.rollouts) if i != index and r.graded and not r.solved]


def environment_feedback(outcome: Outcome | None) -> str | None:
    """What the environment said about the response itself, if it failed by its own fault; else what it replied.

    A turn that solved the task has nothing to learn from a reply.
    """
    if outcome is None:
        return None
    said = "" if outcome.solved else "\n".join(message["content"] for message in outcome.reply)
    return outcome.feedback or said or None


TextOf = Callable[[Task], str | None]


def reference_solution(task: Task) -> str | None:
    """The task's reference solution, as a response would give it."""
    return task.solution


def dataset_column(name: str) -> TextOf:
    """A text that the task's row carries under this name (`Task.columns`)."""
    return lambda task: task.columns.get(name)


def of_task(text: TextOf) -> Source:
    """A source that is the same for every response to a task."""
    return lambda group, index, rng: text(group.task)


def dataset_text(kind: str, column: str | None) -> TextOf:
    """`kind`: "solution" or "column", as `context.demonstration` and `rollout.source` name them."""
    return reference_solution if kind == "solution" else dataset_column(column or "")


def demonstrations(kind: str, column: str | None) -> Source:
    """The source that `context.demonstration` names."""
    if kind in ("solution", "column"):
        return of_task(dataset_text(kind, column))
    return {"random": sibling_success, "none": nothing}[kind]


def of_another(
    source: Source, group: Group, batch: Sequence[Group], rng: np.random.Generator
) -> tuple[Task, str] | None:
    """Another task of the batch, uniformly at random among those for which the source has a text, and that text.

    As a control: what is left of a teacher's worth if it reads about another problem (arXiv 2608.09228)?
    """
    others = [other for other in batch if other.task.id != group.task.id]
    for place in rng.permutation(len(others)):
        text = source(others[place], _NOBODY, rng)
        if text is not None:
            return others[place].task, text
    return None


def check_texts(tasks: Sequence[Task], kind: str, column: str | None, option: str, every: bool = False) -> None:
    """Raises UserError where a source of the dataset has nothing for any task, or, with `every`, for one of them."""
    text = dataset_text(kind, column)
    have = sum(text(task) is not None for task in tasks)
    if have == 0 or (every and have < len(tasks)):
        what = "reference solution (metadata.solution)" if kind == "solution" else f"column {column!r}"
        raise UserError(
            f"{option}={kind}, but {have or 'none'} of the {len(tasks)} training tasks "
            f"{'have' if have > 1 else 'has'} a {what}. Give rows that have one (data.path), or choose another source."
        )
