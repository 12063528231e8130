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

_MEASURES = {
    "mean over the budget": lambda record, dataset: mean_over_budget(Passes.of(record, dataset)),
    "last": lambda record, dataset: last(record, dataset).value,
}


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("adapters")
    if not runs:
        return not_run(evidence, "adapters")
    pairs: dict[str, dict[int, dict[str, Record]]] = {}
    for spec, record in runs:
        pairs.setdefault(spec.algorithm, {}).setdefault(spec.world, {})[spec.label] = record
    text = [opening(evidence, "adapters")]
    for algorithm, worlds in pairs.items():
        whole = {world: (own["whole"], own["adapter"]) for world, own in worlds.items() if len(own) == 2}
        if whole:
            title = f"{name(algorithm)}, worlds {listed(sorted(whole))}: the mean, and each world in brackets."
            text += [title, _compared(whole)]
    title = evidence.studies.parts["adapters"].title
    panels = [_panel(algorithm, worlds) for algorithm, worlds in pairs.items()]
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


def _panel(algorithm: str, worlds: Mapping[int, Mapping[str, Record]]) -> PicturePanel:
    curves, named = [], set()
    for own in worlds.values():
        for label, record in own.items():
            curves.append(
                curve(record, "train", "" if label in named else label, COLOURS[algorithm], dashed=label == "adapter")
            )
            named.add(label)
    return PicturePanel(name(algorithm), GENERATIONS, "pass@1", curves)
