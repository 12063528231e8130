"""From runs to the numbers of figures and tables: means over seeds, best and last, generations until a pass rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdpo.config import registry
from sdpo.report.bounds import Bound
from sdpo.report.runs import Run
from sdpo.tracking import known
from sdpo.tracking.metric_names import PassAtK

Points = list[tuple[float, float]]
THRESHOLDS = (0.3, 0.5, 0.65, 0.8)  # pass@1 at which generations are counted


def mean_curve(curves: Sequence[Points], points: int = 200) -> Points:
    """The mean of several seeds' curves, each linear between its points.

    It runs over the range that all curves cover: a mean whose members come and go would jump.
    """
    return [(x, y) for x, y, _, _ in mean_band(curves, points)]


def mean_band(curves: Sequence[Points], points: int = 200) -> list[tuple[float, float, float, float]]:
    """(x, mean, least, greatest) of several seeds' curves, as `mean_curve` has it."""
    measured = [[(x, y) for x, y in curve if math.isfinite(y)] for curve in curves]
    measured = [curve for curve in measured if curve]
    if not measured:
        return []
    start, end = max(curve[0][0] for curve in measured), min(curve[-1][0] for curve in measured)
    if start > end:
        return []
    grid = np.unique([x for curve in measured for x, _ in curve if start <= x <= end])
    if len(grid) > points:
        grid = np.linspace(start, end, points)
    each = np.array([np.interp(grid, *np.array(curve).T) for curve in measured])
    rows = np.stack([grid, np.mean(each, axis=0), each.min(axis=0), each.max(axis=0)], axis=1)
    return [(float(x), float(y), float(low), float(high)) for x, y, low, high in rows]


def smooth(points: Points, window: int) -> Points:
    """The mean of the last `window` points at each point (fewer at the start), NaN left out."""
    smoothed = []
    for i, (x, _) in enumerate(points):
        value = known.mean(y for _, y in points[max(0, i + 1 - window) : i + 1])
        smoothed.append((x, math.nan if value is None else value))
    return smoothed


def reach(curve: Points, threshold: float) -> Bound:
    """The generations at which a curve first reaches `threshold`, linear between evaluations.

    A curve that never does gives the bound "more than the last point's".
    """
    measured = [(x, y) for x, y in curve if math.isfinite(y)]
    before: tuple[float, float] | None = None
    for x, y in measured:
        if y >= threshold:
            if before is None:
                return Bound.exactly(x)
            x0, y0 = before
            return Bound.exactly(x0 + (x - x0) * (threshold - y0) / (y - y0))
        before = (x, y)
    return Bound.above(measured[-1][0]) if measured else Bound.above(0.0)


@dataclass(frozen=True)
class Measured:
    """One value of pass@k with its interval (NaN where none was recorded), and where it was measured."""

    value: float
    low: float
    high: float
    generations: int
    step: int


def _measured(run: Run, metric: PassAtK) -> list[Measured]:
    def number(row: Mapping[str, object], key: str) -> float:
        value = row.get(key)
        return float(value) if isinstance(value, (int, float)) else math.nan

    rows = {row["step"]: row for row in run.rows if metric.key in row and "step" in row}
    found = [
        Measured(
            number(row, metric.key),
            number(row, metric.low_key),
            number(row, metric.high_key),
            int(row.get("generations", 0)),
            int(step),
        )
        for step, row in sorted(rows.items())
    ]
    return [item for item in found if known.is_known(item.value)]


def best(run: Run, metric: PassAtK) -> Measured | None:
    """The evaluation with the highest value; the first of equals."""
    return known.best(_measured(run, metric), lambda item: item.value)


def last(run: Run, metric: PassAtK) -> Measured | None:
    """The last evaluation."""
    found = _measured(run, metric)
    return found[-1] if found else None


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each label, seeds in order.  Labels go by their algorithms, the bundled ones in the order of their list;
    of one algorithm its own name first."""
    algorithms = registry.order(run.info.algorithm for run in runs)
    ordered = sorted(runs, key=lambda run: (algorithms.index(run.info.algorithm), run.label != run.info.algorithm))
    labels = dict.fromkeys(run.label for run in ordered)
    return {label: sorted((r for r in runs if r.label == label), key=lambda r: r.info.seed) for label in labels}
