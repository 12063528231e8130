"""Which responses' tokens are recorded (`tracking.tokens_mb`), and what the learner found of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from sdpo.tracking.tokens import BYTES_PER_TOKEN
from sdpo.types import Group, Sample, TokenCredit


def with_recorded(
    groups: Sequence[Group], samples: Sequence[Sequence[Sample]], seed: int, budget_mb: float
) -> list[list[Sample]]:
    """The samples, those whose tokens are to be recorded marked as such, within the budget of a step.

    Groups are taken whole, so that a response can be seen beside its siblings; of the first only what fits, where none
    fits.  Their order is that of seeded hashes of their tasks, the same in every step: a task that is recorded is
    likely to be recorded when it is drawn again, and shows how the answers to it change.
    """
    left = budget_mb * 1e6 / BYTES_PER_TOKEN
    marked = [list(own) for own in samples]
    order = sorted(range(len(groups)), key=lambda i: blake2b(f"{seed} {groups[i].task.id}".encode()).digest())
    fitting = []
    for i in order:
        tokens = sum(len(sample.response_ids) for sample in samples[i])
        if tokens <= left:
            fitting.append(i)
            left -= tokens
    for i in fitting or order[:1]:
        room = left
        for j, sample in enumerate(samples[i]):
            room -= len(sample.response_ids)
            if fitting or room >= 0:
                marked[i][j] = replace(sample, recorded=True)
    return marked


def credit_of(
    samples: Sequence[Sequence[Sample]],
    learned: Sequence[Sequence[Sample]],
    credit: Sequence[Sequence[TokenCredit | None]],
) -> list[list[TokenCredit | None]]:
    """The learner's `credit` for all samples; `learned` are those of them that it was given."""
    pairs = ((s, c) for own, found in zip(learned, credit, strict=True) for s, c in zip(own, found, strict=True))
    found = {id(sample): each for sample, each in pairs}
    return [[found.get(id(sample)) for sample in own] for own in samples]
