"""`sdpo.report.reaching` for records, and what the studies ask beyond it.

What another training run would do is seen in the part `repeats`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sdpo.evaluation.bootstrap import LEVEL
from sdpo.evaluation.passk import pass_at_k
from sdpo.report import reaching
from sdpo.report.reaching import ReachEstimate, draws, median_over, quantiles, ratios
from studies.evidence.record import Record


class Passes(reaching.Passes):
    """pass@k per evaluation and problem of a record."""

    @classmethod
    def of(
        cls, record: Record, dataset: str, k: int = 1, difficulty: str | None = None, axis: str = "generations"
    ) -> Passes:
        """`difficulty`: of these problems alone; `axis`: "generations" or "wall_clock_s"."""
        counts = record.problems[dataset]
        at = dict(zip(record.eval["step"], record.eval[axis], strict=True))
        values = pass_at_k(np.array(counts.n), np.array(counts.passed), k)
        kept = [i for i, d in enumerate(counts.difficulty) if difficulty in (None, d)]
        ids = tuple(counts.ids[i] for i in kept)
        return cls(np.array([at[step] for step in counts.steps], float), values[:, kept], ids)


def reach_ratio(slow: Passes, fast: Passes, threshold: float) -> ReachEstimate:
    value, sampled = ratios(slow, fast, threshold)
    return ReachEstimate(value, *quantiles(sampled))


def mean_over_budget(passes: Passes) -> float:
    """Mean pass@k over the budget: the area under its curve, linear between evaluations, divided by the budget."""
    return float(np.trapezoid(passes.curve, passes.xs) / (passes.xs[-1] - passes.xs[0]))


def difference(a: Passes, b: Passes) -> tuple[float, float, float]:
    """(mean over the budget of a − that of b, and the ends of its interval over their common problems)."""
    if a.ids != b.ids:
        raise ValueError("a difference compares runs on the same problems")
    chosen, tail = draws(len(a.ids)), (1 - LEVEL) / 2
    means = [np.trapezoid(p.resampled(chosen), p.xs, axis=1) / (p.xs[-1] - p.xs[0]) for p in (a, b)]
    low, high = np.quantile(means[0] - means[1], (tail, 1 - tail))
    return mean_over_budget(a) - mean_over_budget(b), float(low), float(high)


def median_ratio(pairs: Mapping[int, tuple[Passes, Passes]], threshold: float) -> ReachEstimate:
    """The median over worlds of slow / fast; in every resample each world draws its own problems."""
    return median_over([ratios(slow, fast, threshold, world) for world, (slow, fast) in pairs.items()])
