"""How far apart runs are that differ in their random numbers alone, and what a repeated run should therefore give."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from sdpo.report.figures import GENERATIONS
from sdpo.report.reaching import reach
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, last, number
from studies.evidence.pictures import COLOURS, Picture, PicturePanel
from studies.evidence.reaching import Passes
from studies.evidence.record import Record
from studies.evidence.sections.common import curve, name, not_run, opening
from studies.evidence.spread import further_run, repeated, two_runs
from studies.markdown_table import table


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("repeats")
    if not runs:
        return not_run(evidence, "repeats")
    by_algorithm = repeated(evidence)
    rows = []
    for algorithm, records in by_algorithm.items():
        reached = [reach(Passes.of(record, "train"), 0.5).value.text() for record in records]
        cells = [f"{number(min(v))} … {number(max(v))}" for d in DATASETS for v in [lasts(records, d)]]
        rows.append([name(algorithm), len(records), ", ".join(reached), *cells])
    header = ["", "runs", "generations to training .5", *(f"{TITLES[d]} pass@1, last" for d in DATASETS)]
    panels = [
        PicturePanel(
            f"{TITLES[dataset]} problems",
            GENERATIONS,
            "pass@1",
            [
                curve(r, dataset, name(a) if i == 0 else "", COLOURS[a])
                for a, records in by_algorithm.items()
                for i, r in enumerate(records)
            ],
        )
        for dataset in DATASETS
    ]
    text = f"{opening(evidence, 'repeats')}\n\n{table(header, rows)}"
    picture = Picture("repeats", "The same world again", "World 0, one line per seed.", panels)
    return Section(evidence.studies.parts["repeats"].title, text, [picture], [r for _, r in runs])


def lasts(records: list[Record], dataset: str) -> list[float]:
    return [last(record, dataset).value for record in records]


def expected(evidence: Evidence) -> str:
    """What a run that is made again should give: the prediction interval of one further run, from the repeats."""
    rows = []
    for algorithm, records in repeated(evidence).items():
        if len(records) < 2:
            continue
        for dataset in DATASETS:
            rows.append([name(algorithm), f"{TITLES[dataset]} pass@1", *_row(lasts(records, dataset), number, 1.0)])
        reached = [reach(Passes.of(record, "train"), 0.5).value for record in records]
        if all(value.exact for value in reached):
            cells = _row([value.low for value in reached], "{:,.0f}".format, math.inf)
            rows.append([name(algorithm), "generations to training .5", *cells])
    if not rows:
        return "The part `repeats` is not run yet; it tells how far apart two runs of one setting may be."
    header = ["", "", "mean of the repeats", "95 % of further runs", "two single runs"]
    return (
        "A run of the chosen settings on world 0, with whatever seed, comes out in the fourth column (at the last "
        "evaluation; prediction interval of one further run from the spread of the repeats, t distribution). The last "
        "one is for other worlds, where there is one recorded run to compare with: how far two runs may be apart, if "
        "they vary there as they do on world 0. Seed 0 is the run that won the tuning, which may flatter it.\n\n"
        + table(header, rows)
    )


def _row(values: list[float], form: Callable[[float], str], most: float) -> list[str]:
    middle, half = statistics.mean(values), further_run(values)
    ends = f"{form(max(0.0, middle - half))} – {form(min(most, middle + half))}"
    return [form(middle), ends, f"± {form(two_runs(values))}"]
