"""Generations until a pass rate, side by side, and the comparison in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sdpo.report.bounds import UNKNOWN, Bound, median, ratio
from sdpo.report.curves import THRESHOLDS, Points, by_label, reach
from sdpo.report.figures import display
from sdpo.report.reaching import Passes, ReachEstimate, ratio_interval
from sdpo.report.runs import Run, measured_pass_at_k
from sdpo.tracking import metric_names as names

_HEADLINES = (0.5, 0.3)  # the pass@1 that a sentence is about: the first that the first label reaches
Curves = Mapping[str, Mapping[int, Points]]  # label → seed → curve


@dataclass(frozen=True)
class ReachRow:
    """Generations to one pass@1: per label the median and each seed's, and the ratios to the first label.

    `intervals`: of the ratio, over problems and, where there are several, seeds; none without counts per problem.
    """

    threshold: float
    reached: dict[str, Bound]
    seeds: dict[str, dict[int, Bound]]
    ratios: dict[str, Bound]  # label → generations of the label / generations of the first, median over common seeds
    ratio_seeds: dict[str, dict[int, Bound]]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def ratio_text(self, label: str) -> str:
        """ "4.3 [3.6, 5.2]"."""
        if label not in self.intervals:
            return self.ratios[label].text("{:.1f}")
        return ReachEstimate(self.ratios[label], *self.intervals[label]).text("{:.1f}")


@dataclass(frozen=True)
class ReachTable:
    dataset: str
    metric: str
    labels: list[str]
    rows: list[ReachRow]


def reach_tables(runs: Sequence[Run]) -> list[ReachTable]:
    """A table per data set, of pass@1; the first label (SDPO, if it is there) is what the others are compared with."""
    groups = by_label(runs)
    tables = []
    for metric in measured_pass_at_k(runs):
        if metric.k != 1:
            continue
        curves = {
            label: {run.info.seed: run.series(metric.key) for run in members} for label, members in groups.items()
        }
        curves = {label: {s: c for s, c in seeds.items() if c} for label, seeds in curves.items()}
        curves = {label: seeds for label, seeds in curves.items() if seeds}
        passes = {label: _passes(groups[label], metric.dataset) for label in curves}
        rows = [_row(threshold, curves, passes) for threshold in _thresholds(curves)]
        tables.append(ReachTable(names.dataset_title(metric.dataset), metric.key, list(curves), rows))
    return tables


def _row(threshold: float, curves: Curves, passes: Mapping[str, Mapping[int, Passes]]) -> ReachRow:
    first, *others = curves
    seeds = {label: {s: reach(curve, threshold) for s, curve in own.items()} for label, own in curves.items()}
    reached = {label: median(list(bounds.values())) for label, bounds in seeds.items()}
    ratio_seeds = {
        label: {s: ratio(seeds[label][s], seeds[first][s]) for s in seeds[label] if s in seeds[first]}
        for label in others
    }
    ratios = {label: median(list(r.values())) if r else UNKNOWN for label, r in ratio_seeds.items()}
    intervals = {}
    for label in others:
        common = list(ratio_seeds[label])
        if common and all(s in passes[label] and s in passes[first] for s in common):
            interval = ratio_interval([(passes[label][s], passes[first][s]) for s in common], threshold)
            if interval is not None:
                intervals[label] = interval
    return ReachRow(threshold, reached, seeds, ratios, ratio_seeds, intervals)


def _passes(runs: Sequence[Run], dataset: str) -> dict[int, Passes]:
    """Seed → counts per problem at the evaluations that metrics.jsonl has, too."""
    found = {}
    for run in runs:
        at = {row["step"]: float(row["generations"]) for row in run.rows if {"step", "generations"} <= row.keys()}
        results = {at[s]: result for s, result in run.results.get(dataset, {}).items() if s in at}
        if results:
            found[run.info.seed] = Passes.of_results(results)
    return found


def _thresholds(curves: Curves) -> tuple[float, ...]:
    """Those of every comparison; where all labels stay below them, the greatest that all come to as well."""
    known = [[y for _, y in curve if math.isfinite(y)] for seeds in curves.values() for curve in seeds.values()]
    tops = [max((y for curve in seeds.values() for _, y in curve if y == y), default=0.0) for seeds in curves.values()]
    start = max((ys[0] for ys in known if ys), default=0.0)
    common = math.floor(100 * min(tops, default=0.0)) / 100
    return (common, *THRESHOLDS) if start < common < min(THRESHOLDS) else THRESHOLDS


def sentence(table: ReachTable) -> str | None:
    """The comparison in one sentence: at pass@1 .5, at .3 if the first label never gets there, or at what all reach."""
    rows = {row.threshold: row for row in table.rows}
    for row in (rows[threshold] for threshold in (*_HEADLINES, min(rows)) if len(table.labels) > 1):
        first, *others = table.labels
        if math.isinf(row.reached[first].high):
            continue
        parts = []
        for other in others:
            seeds = len(row.ratio_seeds[other])
            several = f", median of {seeds} seeds" if seeds > 1 else ""
            if row.ratios[other] == UNKNOWN:
                continue
            reached = row.reached[other]
            how = f"after {reached.text()}" if reached.exact else f"not within {reached.low:,.0f}"
            parts.append(f"{display(other)} {how} ({row.ratio_text(other)} times as many{several})")
        if parts:
            return (
                f"On the {table.dataset}, {display(first)} reaches pass@1 {row.threshold:g} after "
                f"{row.reached[first].text()} generations, {'; '.join(parts)}."
            )
    return None
