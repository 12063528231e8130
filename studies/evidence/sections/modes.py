"""Continuous generation beside synchronous generation: the same seeds, and how far apart seeds are."""

from __future__ import annotations

import statistics

from sdpo.report.figures import GENERATIONS
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, last, number
from studies.evidence.pictures import FREE, Picture, PicturePanel
from studies.evidence.record import Record
from studies.evidence.sections.common import curve, not_run, opening
from studies.evidence.settings import area
from studies.evidence.spread import two_runs
from studies.markdown_table import table


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("modes")
    if not runs:
        return not_run(evidence, "modes")
    by_mode: dict[str, list[Record]] = {}
    for spec, record in runs:
        by_mode.setdefault(spec.label, []).append(record)
    header = ["", "seeds", "mean training pass@1 over the budget", *(f"{TITLES[d]} pass@1, last" for d in DATASETS)]
    rows = [
        [mode, len(records), _range(areas(records)), *(_range([last(r, d).value for r in records]) for d in DATASETS)]
        for mode, records in by_mode.items()
    ]
    text = [opening(evidence, "modes"), table(header, rows)]
    first = next(iter(by_mode))
    if len(by_mode[first]) > 1:
        spread = two_runs(areas(by_mode[first]))
        text.append(
            f"The mean of the seeds, and the least and the greatest of them. {_verdict(by_mode, first, spread)}"
        )
    panels = [
        PicturePanel(
            f"{TITLES[dataset]} problems",
            GENERATIONS,
            "pass@1",
            [
                curve(record, dataset, mode if i == 0 else "", FREE[place % len(FREE)])
                for place, (mode, records) in enumerate(by_mode.items())
                for i, record in enumerate(records)
            ],
        )
        for dataset in DATASETS
    ]
    title = evidence.studies.parts["modes"].title
    picture = Picture("modes", title, "World 0, one line per seed.", panels)
    return Section(title, "\n\n".join(text), [picture], [r for _, r in runs])


def areas(records: list[Record]) -> list[float]:
    return [area(record) for record in records]


def _range(values: list[float]) -> str:
    return f"{number(statistics.mean(values))} ({number(min(values))} … {number(max(values))})"


def _verdict(by_mode: dict[str, list[Record]], first: str, spread: float) -> str:
    base = statistics.mean(areas(by_mode[first]))
    words = []
    for mode, records in by_mode.items():
        if mode != first:
            gap = statistics.mean(areas(records)) - base
            words.append(f"{mode}: {'+' if gap >= 0 else '−'}{number(abs(gap))}")
    return (
        f"Means over the budget, less that of {first}: {'; '.join(words)}. Two {first} runs that differ in their seed "
        f"are apart by up to {number(spread)} (95 %)."
    )
