"""How far apart runs are that differ in their random numbers alone, and what a repeated run should therefore give."""

from __future__ import annotations

import statistics

from sdpo.evidence.evidence import DATASETS, TITLES, Evidence
from sdpo.evidence.markdown import Section, last, number, table
from sdpo.evidence.pictures import COLOURS, Panel, Picture
from sdpo.evidence.reaching import Passes, reach
from sdpo.evidence.record import Record
from sdpo.evidence.sections.common import curve, name, not_run, opening
from sdpo.report.figures import GENERATIONS


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("repeats")
    if not runs:
        return not_run(evidence, "repeats")
    by_algorithm = groups(evidence)
    rows = []
    for algorithm, records in by_algorithm.items():
        reached = [reach(Passes.of(record, "train"), 0.5).value.text() for record in records]
        cells = [f"{number(min(v))} … {number(max(v))}" for d in DATASETS for v in [lasts(records, d)]]
        rows.append([name(algorithm), len(records), ", ".join(reached), *cells])
    header = ["", "runs", "generations to training .5", *(f"{TITLES[d]} pass@1, last" for d in DATASETS)]
    panels = [
        Panel(
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


def groups(evidence: Evidence) -> dict[str, list[Record]]:
    """Algorithm → its runs that differ in the seed alone."""
    result: dict[str, list[Record]] = {}
    for spec, record in evidence.finished("repeats"):
        result.setdefault(spec.algorithm, []).append(record)
    return result


def lasts(records: list[Record], dataset: str) -> list[float]:
    return [last(record, dataset).value for record in records]


def expected(evidence: Evidence) -> str:
    """What a run that is made again should give: the prediction interval of one further run, from the repeats."""
    rows = []
    for algorithm, records in groups(evidence).items():
        if len(records) < 2:
            continue
        for dataset in DATASETS:
            values = lasts(records, dataset)
            half, middle = further_run(values), statistics.mean(values)
            ends = f"{number(max(0.0, middle - half))} – {number(min(1.0, middle + half))}"
            rows.append([name(algorithm), f"{TITLES[dataset]} pass@1", number(middle), f"± {number(half)}", ends])
        reached = [reach(Passes.of(record, "train"), 0.5).value for record in records]
        if all(value.exact for value in reached):
            values = [value.low for value in reached]
            half, middle = further_run(values), statistics.mean(values)
            ends = f"{max(0.0, middle - half):,.0f} – {middle + half:,.0f}"
            cells = ["generations to training .5", f"{middle:,.0f}", f"± {half:,.0f}", ends]
            rows.append([name(algorithm), *cells])
    if not rows:
        return "The part `repeats` is not run yet; it tells how far apart two runs of one setting may be."
    header = ["", "", "mean of the repeats", "", "95 % of further runs"]
    return (
        "A run of the chosen settings on world 0, with whatever seed, should come out here (at the last evaluation; "
        "prediction interval of one further run from the spread of the repeats, t distribution). On other worlds, take "
        "the same width around the recorded value:\n\n" + table(header, rows)
    )


_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}  # 97.5 % quantile, n − 1 degrees of freedom


def further_run(values: list[float]) -> float:
    """Half the width of the 95 % prediction interval of one more value: t·s·√(1 + 1/n)."""
    n = len(values)
    return _T.get(n, 2.3) * statistics.stdev(values) * (1 + 1 / n) ** 0.5
