"""Training an adapter beside training the whole model: what of its pass rates it reaches in the same generations."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from sdpo.report.figures import GENERATIONS
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, last, number
from studies.evidence.pictures import COLOURS, Picture, PicturePanel
from studies.evidence.reaching import Passes, mean_over_budget
from studies.evidence.record import Record
from studies.evidence.sections.common import curve, listed, name, not_run, opening
from studies.markdown_table import table

WHOLE = "whole"  # the label of the runs that the others are compared with
_MEASURES = {
    "mean over the budget": lambda record, dataset: mean_over_budget(Passes.of(record, dataset)),
    "last": lambda record, dataset: last(record, dataset).value,
}


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("adapters")
    if not runs:
        return not_run(evidence, "adapters")
    wholes = {(spec.algorithm, spec.world): record for spec, record in runs if spec.label == WHOLE}
    pairs: dict[tuple[str, str], dict[int, tuple[Record, Record]]] = {}
    for spec, record in runs:
        whole = wholes.get((spec.algorithm, spec.world))
        if spec.label != WHOLE and whole is not None:
            title = f"{name(spec.algorithm)}, {spec.label}"
            pairs.setdefault((title, spec.algorithm), {})[spec.world] = whole, record
    text = [opening(evidence, "adapters")]
    for (title, _), worlds in pairs.items():
        text += [f"{title}, worlds {listed(sorted(worlds))}: the mean, and each world in brackets.", _compared(worlds)]
    title = evidence.studies.parts["adapters"].title
    panels = [_panel(*key, worlds) for key, worlds in pairs.items()]
    caption = "Training pass@1, a line for each world. Solid: the whole model; dashed: an adapter of rank 16."
    return Section(title, "\n\n".join(text), [Picture("adapters", title, caption, panels)], [r for _, r in runs])


def _compared(pairs: Mapping[int, tuple[Record, Record]]) -> str:
    rows = []
    for dataset in DATASETS:
        for title, measure in _MEASURES.items():
            values = [[measure(record, dataset) for record in pair] for pair in pairs.values()]
            whole, adapter = zip(*values, strict=True)
            share = statistics.mean(adapter) / statistics.mean(whole) if any(whole) else None
            cells = [f"{number(statistics.mean(v))} ({', '.join(map(number, v))})" for v in (whole, adapter)]
            rows.append([f"{TITLES[dataset]} pass@1, {title}", *cells, "" if share is None else f"**{number(share)}**"])
    return table(["", "whole model", "adapter", "adapter ÷ whole"], rows)


def _panel(title: str, algorithm: str, worlds: Mapping[int, tuple[Record, Record]]) -> PicturePanel:
    curves = []
    for place, (whole, adapter) in enumerate(worlds.values()):
        labels = (WHOLE, "adapter") if place == 0 else ("", "")
        curves += [
            curve(whole, "train", labels[0], COLOURS[algorithm]),
            curve(adapter, "train", labels[1], COLOURS[algorithm], dashed=True),
        ]
    return PicturePanel(title, GENERATIONS, "pass@1", curves)
