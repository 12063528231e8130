"""discovery@k: the probability that at least one of the first k attempts solves a question (arXiv 2601.20802 §5).

Attempts of a search depend on each other, so that its first success is all that it tells.  Where attempts are
independent samples, discovery@k is pass@k, and all of them tell (`sdpo.evaluation.pass_at_k`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sdpo.evaluation.passk import pass_at_k
from sdpo.report.reaching import draws

LEVEL = 0.9  # of the intervals, as in the paper
_RESAMPLES = 1000
Curves = Callable[[np.ndarray], np.ndarray]  # chosen questions → discovery@k over all of them


@dataclass(frozen=True)
class Curve:
    """discovery@k over all questions with its bootstrap interval over them; every array is float64 [k]."""

    ks: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def attempts_to(self, share: float) -> int | None:
        """The first k at which so many questions are discovered; None: at none."""
        reached = np.flatnonzero(self.value >= share)
        return int(self.ks[reached[0]]) if len(reached) else None


def first_success(ended: ArrayLike, solved: ArrayLike, ks: ArrayLike) -> np.ndarray:
    """P(first success ≤ k) by the product-limit estimator (Kaplan and Meier, 1958), float64 [k].

    ended: attempts after which each search ended, [n].  solved: whether with a success, else it was cut off (censored).
    Where all others are cut off at one budget, it is the share of searches that have succeeded.
    """
    ended, solved, ks = np.asarray(ended), np.asarray(solved, bool), np.asarray(ks)
    times = np.unique(ended[solved])
    at_risk = (ended[None] >= times[:, None]).sum(1)
    succeeded = ((ended[None] == times[:, None]) & solved[None]).sum(1)
    survival = np.concatenate([[1.0], np.cumprod(1 - succeeded / np.maximum(at_risk, 1))])
    return 1 - survival[np.searchsorted(times, ks, side="right")]


def of_searches(searches: Mapping[str, Sequence[tuple[int, bool]]], ks: ArrayLike) -> Curve:
    """searches: by question, those of all seeds: (attempts after which it ended, whether solved)."""
    ks, each = np.asarray(ks), list(searches.values())

    def curve(chosen: np.ndarray) -> np.ndarray:
        found = [search for question in chosen for search in each[question]]
        return first_success([n for n, _ in found], [solved for _, solved in found], ks)

    return _with_interval(curve, len(each), ks)


def of_samples(samples: Mapping[str, tuple[int, int]], ks: ArrayLike) -> Curve:
    """samples: by question, (independent samples, how many of them are right); no k beyond the fewest samples."""
    ks = np.asarray(ks)
    n, c = (np.array(column) for column in zip(*samples.values(), strict=True))
    values = np.stack([pass_at_k(n, c, int(k)) for k in ks], 1)  # [questions, k]
    return _with_interval(lambda chosen: values[chosen].mean(0), len(values), ks)


def _with_interval(curve: Curves, questions: int, ks: np.ndarray) -> Curve:
    """Questions are drawn with replacement, with all their searches."""
    drawn = np.stack([curve(chosen) for chosen in draws(questions, _RESAMPLES)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Curve(ks, curve(np.arange(questions)), low, high)


def grid(budget: int, points: int = 60) -> np.ndarray:
    """Numbers of attempts from 1 to the budget, closer together where they are few; int64, increasing."""
    return np.unique(np.round(np.geomspace(1, budget, points)).astype(np.int64))
