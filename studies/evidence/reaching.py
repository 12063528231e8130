"""Generations until a pass rate, their ratio between two methods, and how sure both are.

Intervals are percentile bootstrap intervals over problems: problems are drawn with replacement, the same ones for both
methods and all evaluations of a world, and the whole computation is done again.  They say how other problems of the
kind would have come out; what another training run would do is seen in the part `repeats`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdpo.evaluation.bootstrap import LEVEL
from sdpo.evaluation.passk import pass_at_k
from sdpo.report.bounds import UNKNOWN, Bound, median, ratio
from studies.evidence.record import Record

RESAMPLES = 2000


@dataclass(frozen=True)
class ReachEstimate:
    """A number or a bound, and its interval, whose ends may be bounds as well (inf: never within the budget)."""

    value: Bound
    low: float
    high: float

    def text(self, form: str = "{:,.0f}") -> str:
        """ "1,081 [900, 1,300]", "> 5,120 [> 4,600]"."""
        if self.value == UNKNOWN:
            return "–"
        if math.isinf(self.high) and self.low <= 0:
            return f"{self.value.text(form)} [not bounded]"
        if math.isinf(self.high):
            return f"{self.value.text(form)} [> {form.format(self.low)}]"
        return f"{self.value.text(form)} [{form.format(self.low)}, {form.format(self.high)}]"


@dataclass(frozen=True)
class Passes:
    """pass@k per evaluation and problem: `values` [E, P], at `xs` [E] generations (or seconds)."""

    xs: np.ndarray
    values: np.ndarray
    ids: tuple[str, ...]

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

    @property
    def curve(self) -> np.ndarray:
        """[E]: the mean over problems."""
        return self.values.mean(axis=1)

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        """[R, E]: the curve of each draw of problems [R, P]."""
        counts = np.zeros((len(draws), self.values.shape[1]))
        np.add.at(counts, (np.arange(len(draws))[:, None], draws), 1)
        return counts @ self.values.T / draws.shape[1]


def draws(problems: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """[resamples, problems]: indices of problems, drawn with replacement."""
    return np.random.default_rng(seed).integers(problems, size=(resamples, problems))


def crossings(xs: np.ndarray, curves: np.ndarray, threshold: float) -> np.ndarray:
    """[R]: where each curve [R, E] first reaches the threshold, linear between evaluations; inf where it never does."""
    above = curves >= threshold
    first = np.where(above.any(axis=1), above.argmax(axis=1), -1)
    result = np.full(len(curves), np.inf)
    for row, index in enumerate(first):
        if index == 0:
            result[row] = xs[0]
        elif index > 0:
            y0, y1 = curves[row, index - 1], curves[row, index]
            x0, x1 = xs[index - 1], xs[index]
            result[row] = x0 + (x1 - x0) * (threshold - y0) / (y1 - y0)
    return result


def bound(crossing: float, budget: float) -> Bound:
    """A crossing as a bound: never means more than the budget."""
    return Bound.exactly(float(crossing)) if math.isfinite(crossing) else Bound.above(float(budget))


def quantiles(values: Sequence[Bound]) -> tuple[float, float]:
    """The interval's ends: the lower quantile of what each value is at least, the upper one of what it is at most."""
    tail = (1 - LEVEL) / 2
    low = np.quantile([v.low for v in values], tail, method="lower")
    high = np.quantile([v.high for v in values], 1 - tail, method="higher")
    return float(low), float(high)


def reach(passes: Passes, threshold: float) -> ReachEstimate:
    """Generations until mean pass@k reaches the threshold."""
    budget = passes.xs[-1]
    value = bound(crossings(passes.xs, passes.curve[None], threshold)[0], budget)
    sampled = crossings(passes.xs, passes.resampled(draws(passes.values.shape[1])), threshold)
    return ReachEstimate(value, *quantiles([bound(x, budget) for x in sampled]))


def ratios(slow: Passes, fast: Passes, threshold: float, seed: int = 0) -> tuple[Bound, list[Bound]]:
    """(generations of `slow` / generations of `fast`, the same for every resample of their common problems)."""
    if slow.ids != fast.ids:
        raise ValueError("a ratio compares runs on the same problems")
    chosen = draws(len(slow.ids), seed=seed)
    pairs = []
    for curves in ((slow.curve[None], fast.curve[None]), (slow.resampled(chosen), fast.resampled(chosen))):
        ends = [crossings(p.xs, c, threshold) for p, c in zip((slow, fast), curves, strict=True)]
        budgets = slow.xs[-1], fast.xs[-1]
        pairs.append([ratio(bound(a, budgets[0]), bound(b, budgets[1])) for a, b in zip(*ends, strict=True)])
    return pairs[0][0], pairs[1]


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


def median_over(each: Sequence[tuple[Bound, list[Bound]]]) -> ReachEstimate:
    """The median over worlds of values that `ratios` returned."""
    value = median([value for value, _ in each])
    sampled = zip(*(sampled for _, sampled in each), strict=True)
    return ReachEstimate(value, *quantiles([median(list(row)) for row in sampled]))
