"""What several sections share: curves of records, tables of generations, notes on what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sdpo.report.curves import THRESHOLDS
from sdpo.report.figures import GENERATIONS, display
from sdpo.report.reaching import reach
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, interval, last, number
from studies.evidence.pictures import BLACK, COLOURS, FREE, Curve, PicturePanel
from studies.evidence.reaching import Passes
from studies.evidence.record import Record
from studies.evidence.settings import area
from studies.markdown_table import table

Named = Sequence[tuple[str, Record]]  # what a run is called in a figure or table


def not_run(evidence: Evidence, part: str) -> Section:
    """The section of a part without data."""
    declared = evidence.studies.parts[part]
    text = f"{declared.question}\n\n*Not run yet.* `make results PARTS={part}`"
    if declared.needs:
        text += f" needs policies that are not shipped: {', '.join(f'`{made}`' for made in declared.needs.values())}."
    return Section(declared.title, text)


def opening(evidence: Evidence, part: str) -> str:
    """The question, how much of it has been run, and what failed."""
    declared, specs = evidence.studies.parts[part], evidence.specs(part)
    finished, failed = evidence.finished(part), evidence.failed(part)
    lines = [declared.question]
    if len(finished) < len(specs):
        lines.append(f"*{len(finished)} of {len(specs)} runs are finished.* `make results PARTS={part}` goes on.")
    lines += [f"*{record.run} failed:* {record.reason}" for record in failed]
    return "\n\n".join(lines)


def name(algorithm: str) -> str:
    return display(algorithm)


def outcome_table(named: Named) -> str:
    """Per run: generations to the thresholds, area under the curve, last pass rates."""
    header = ["", *(f"to {number(t).rstrip('0')}" for t in THRESHOLDS), "mean"]
    header += [f"{TITLES[d]} pass@1, last" for d in DATASETS]
    rows = []
    for label, record in named:
        passes = Passes.of(record, "train")
        reached = [reach(passes, t).value.text() for t in THRESHOLDS]
        rows.append([label, *reached, number(area(record)), *(interval(last(record, d)) for d in DATASETS)])
    return table(header, rows)


OUTCOME_NOTE = (
    "Columns: generations until training pass@1 reaches .3, .5, .65 and .8; mean training pass@1 over the budget; "
    "pass@1 at the last evaluation with its interval over problems."
)


def curve(record: Record, dataset: str, label: str, colour: str, k: int = 1, **style) -> Curve:
    passes = Passes.of(record, dataset, k)
    return Curve(label, list(zip(passes.xs.tolist(), passes.curve.tolist(), strict=True)), colour, **style)


def dataset_panels(named: Named, colours: Mapping[str, str] | None = None) -> list[PicturePanel]:
    """Training and held-out pass@1 against generations, a curve for each run."""
    colours = colours or {label: FREE[i % len(FREE)] for i, (label, _) in enumerate(named)}
    return [
        PicturePanel(
            f"{TITLES[dataset]} problems",
            GENERATIONS,
            "pass@1",
            [curve(record, dataset, label, colours[label]) for label, record in named],
        )
        for dataset in DATASETS
    ]


def group_panel(title: str, named: Named) -> PicturePanel:
    """Training (solid) and held-out (dashed) pass@1 of some runs on one pair of axes; the chosen settings in black."""
    curves, free = [], iter(FREE * 3)
    for label, record in named:
        colour = BLACK if "chosen" in label else next(free)
        curves.append(curve(record, "train", label, colour))
        curves.append(curve(record, "held_out", "", colour, dashed=True, thin=True))
    return PicturePanel(title, GENERATIONS, "pass@1", curves)


SOLID = "Solid: training problems; thin and dashed: held-out problems."


def pair_panel(title: str, pair: Mapping[str, Record]) -> PicturePanel:
    curves = []
    for algorithm, record in pair.items():
        curves.append(curve(record, "train", name(algorithm), COLOURS[algorithm]))
        curves.append(curve(record, "held_out", "", COLOURS[algorithm], dashed=True, thin=True))
    return PicturePanel(title, GENERATIONS, "pass@1", curves)


def listed(values: Iterable[object]) -> str:
    """a; a and b; a, b and c."""
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
