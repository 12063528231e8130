"""Generations until a pass rate, their ratio between two methods, and how sure both are.

Intervals are percentile bootstrap intervals over problems: problems are drawn with replacement, the same ones for both
methods and all evaluations, and the whole computation is done again.  They say how other problems of the kind would
have come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from sdpo.evaluation import EvaluationResult
from sdpo.evaluation.bootstrap import LEVEL
from sdpo.evaluation.passk import pass_at_k
from sdpo.report.bounds import UNKNOWN, Bound, median, ratio

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
    def of_results(cls, results: Mapping[float, EvaluationResult], k: int = 1) -> Passes:
        """`results` by generations.  A problem that was not measured every time is left out."""
        measured = [{p.id: p for p in result.problems if p.n >= k} for result in results.values()]
        ids = [i for i in measured[0] if all(i in one for one in measured)] if measured else []
        n, c = (np.array([[getattr(one[i], name) for i in ids] for one in measured], int) for name in ("n", "c"))
        return Passes(np.array(list(results), float), pass_at_k(n, c, k), tuple(ids))

    @property
    def curve(self) -> np.ndarray:
        """[E]: the mean over problems."""
        return self.values.mean(axis=1)

    def on(self, ids: Sequence[str]) -> Self:
        """Those of some problems, in this order."""
        places = {name: place for place, name in enumerate(self.ids)}
        return type(self)(self.xs, self.values[:, [places[name] for name in ids]], tuple(ids))

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


def median_over(each: Sequence[tuple[Bound, list[Bound]]]) -> ReachEstimate:
    """The median over worlds of values that `ratios` returned."""
    value = median([value for value, _ in each])
    sampled = zip(*(sampled for _, sampled in each), strict=True)
    return ReachEstimate(value, *quantiles([median(list(row)) for row in sampled]))


def ratio_interval(pairs: Sequence[tuple[Passes, Passes]], threshold: float) -> tuple[float, float] | None:
    """The interval of the median over seeds of slow / fast, for (slow, fast) of each seed.

    All seeds are measured on the same problems, and a resample draws these once for all of them.  With several seeds
    it draws the seeds as well, with replacement: another one would have come out differently, too.  None: there are
    not two common problems.
    """
    common = [i for i in pairs[0][0].ids if all(i in p.ids for pair in pairs for p in pair)] if pairs else []
    if len(common) < 2:
        return None
    sampled = [ratios(slow.on(common), fast.on(common), threshold)[1] for slow, fast in pairs]
    seeds = np.random.default_rng(len(pairs)).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    return quantiles([median([sampled[s][row] for s in drawn]) for row, drawn in enumerate(seeds)])
