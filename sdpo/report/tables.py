"""The tables of a page: settings side by side, best and last pass@k."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdpo.config import identity
from sdpo.report.curves import Measured, best, by_label, last
from sdpo.report.figures import display
from sdpo.report.runs import Run, measured_pass_at_k
from sdpo.tracking import metric_names as names

_OWN = {"name", "seed"}  # of a run, not of what is compared
_MISSING = "–"


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """{"a": {"b": 1}} → {"a.b": "1"}."""
    return {key: _setting(value) for key, value in identity.flatten(settings).items()}


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class ComparedSettings:
    """`different`: (key, value per label); `same`: (key, value)."""

    labels: list[str]
    different: list[tuple[str, list[str]]]
    same: list[tuple[str, str]]


def settings(runs: Sequence[Run]) -> ComparedSettings:
    """What the labels were run with.  A setting that differs between the seeds of one label shows all its values."""
    groups = by_label(runs)
    flats = {label: [flatten(run.recipe) for run in members] for label, members in groups.items()}
    keys = dict.fromkeys(key for flat in flats.values() for one in flat for key in one if key not in _OWN)
    different, same = [], []
    for key in keys:
        values = [" / ".join(dict.fromkeys(one.get(key, _MISSING) for one in flats[label])) for label in groups]
        if len(set(values)) > 1:
            different.append((key, values))
        else:
            same.append((key, values[0]))
    return ComparedSettings([display(label) for label in groups], different, same)


@dataclass(frozen=True)
class Score:
    """Best and last pass@k of one run, or their means over a label's runs."""

    best: str
    best_at: str
    last: str


@dataclass(frozen=True)
class ScoreRow:
    label: str
    seed: str
    generations: str
    scores: list[Score]
    is_mean: bool = False


@dataclass(frozen=True)
class ScoreTable:
    dataset: str
    thinking: str  # the rule by which programs were found in responses; several where runs differ
    columns: list[str]
    rows: list[ScoreRow]


def _text(measured: Measured) -> str:
    interval = f" [{measured.low:.2f}, {measured.high:.2f}]" if math.isfinite(measured.low + measured.high) else ""
    return f"{measured.value:.2f}{interval}"


def _mean_text(found: Sequence[Measured]) -> str:
    values = [item.value for item in found]
    return f"{statistics.mean(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def score_tables(runs: Sequence[Run]) -> list[ScoreTable]:
    """A table per data set: a row per run, and a row with mean (least … greatest) for labels with several runs."""
    metrics = measured_pass_at_k(runs)
    thinking = " / ".join(dict.fromkeys(run.thinking for run in runs))
    tables = []
    for dataset in dict.fromkeys(metric.dataset for metric in metrics):
        own = [metric for metric in metrics if metric.dataset == dataset]
        rows = []
        for label, members in by_label(runs).items():
            for run in members:
                scores = []
                for metric in own:
                    top, end = best(run, metric), last(run, metric)
                    if top is None or end is None:
                        scores.append(Score(_MISSING, "", _MISSING))
                    else:
                        scores.append(Score(_text(top), f"{top.generations:,}", _text(end)))
                rows.append(ScoreRow(display(label), str(run.info.seed), f"{run.generations:,}", scores))
            if len(members) > 1:
                rows.append(_mean_row(label, members, own))
        tables.append(ScoreTable(names.dataset_title(dataset), thinking, [metric.title for metric in own], rows))
    return tables


def _mean_row(label: str, members: Sequence[Run], metrics: Sequence[names.PassAtK]) -> ScoreRow:
    scores = []
    for metric in metrics:
        tops = [found for run in members if (found := best(run, metric)) is not None]
        ends = [found for run in members if (found := last(run, metric)) is not None]
        scores.append(Score(_mean_text(tops), "", _mean_text(ends)) if tops else Score(_MISSING, "", _MISSING))
    return ScoreRow(display(label), "mean", "", scores, is_mean=True)
