"""Training on one turn and on three, compared at equal generated tokens; and how far the teacher is at each turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, number
from studies.evidence.pictures import BLUE, ORANGE, Curve, Picture, PicturePanel
from studies.evidence.record import Record
from studies.evidence.sections.common import listed, not_run, opening
from studies.markdown_table import table

TOKENS = "generated_tokens"
_WITHIN = {"first_turn/pass@1": "first attempt", "pass@1": "within three turns"}
_MEASURES = [(f"eval/{d}/{key}", f"{TITLES[d]}, {what}") for d in DATASETS for key, what in _WITHIN.items()]
_COLOURS = {"sdpo": BLUE, "grpo": ORANGE}
_NOTE = (
    "Generated tokens are those of all responses of training; the budget is what the run with the fewest has, values "
    "between two evaluations lie on the line between them. pass@1 is from 4 samples per problem: the first attempt, "
    "and what is solved within three turns, where a failed attempt is answered with the feedback of training. "
)


def section(evidence: Evidence) -> Section:
    runs = evidence.finished("turns")
    if not runs:
        return not_run(evidence, "turns")
    worlds: dict[int, dict[str, Record]] = {}
    for spec, record in runs:
        worlds.setdefault(spec.world, {})[spec.label] = record
    labels = dict.fromkeys(spec.label for spec, _ in runs)
    complete = {world: own for world, own in worlds.items() if set(own) == set(labels)}
    text = [opening(evidence, "turns")]
    if complete:
        budgets = {world: min(record.eval[TOKENS][-1] for record in own.values()) for world, own in complete.items()}
        text += [_at_budget(labels, complete, budgets), _initial(complete)]
    text += [_NOTE + "Each run at its end:", _ends(worlds)]
    algorithms = {spec.label: (spec.algorithm, "multi" in spec.variant) for spec, _ in runs}
    panels = [_panel(title, metric, worlds, algorithms) for metric, title in _MEASURES]
    caption = "pass@1 against generated tokens, a line for each world. Solid: trained on one turn; dashed: on three."
    title = evidence.studies.parts["turns"].title
    return Section(title, "\n\n".join(text), [Picture("turns", title, caption, panels)], [r for _, r in runs])


def at_tokens(record: Record, metric: str, tokens: float) -> float:
    """A metric of the evaluations at so many generated tokens, linear between evaluations."""
    xs, ys = zip(*record.curve(metric, TOKENS), strict=True)
    return float(np.interp(tokens, xs, ys))


def _at_budget(labels, complete: Mapping[int, Mapping[str, Record]], budgets: Mapping[int, float]) -> str:
    rows = []
    for label in labels:
        row = [label]
        for metric, _ in _MEASURES:
            values = [at_tokens(own[label], metric, budgets[world]) for world, own in complete.items()]
            each = f" ({', '.join(map(number, values))})" if len(values) > 1 else ""
            row.append(f"**{number(statistics.mean(values))}**{each}")
        rows.append(row)
    at = listed(f"{budgets[world]:,} (world {world})" for world in complete)
    return f"pass@1 at {at} generated tokens, the mean over worlds and each world:\n\n" + table(
        ["trained with", *(title for _, title in _MEASURES)], rows
    )


def _initial(complete: Mapping[int, Mapping[str, Record]]) -> str:
    first = [next(iter(own.values())) for own in complete.values()]
    cells = [f"{title} {number(statistics.mean(at_tokens(r, m, 0) for r in first))}" for m, title in _MEASURES]
    return f"Before training: {'; '.join(cells)}."


def _ends(worlds: Mapping[int, Mapping[str, Record]]) -> str:
    rows = []
    for world, own in worlds.items():
        for label, record in own.items():
            values = [number(record.curve(metric, TOKENS)[-1][1]) for metric, _ in _MEASURES]
            counts = [f"{record.eval[key][-1]:,}" for key in ("step", "generations", TOKENS)]
            rows.append([label, world, *counts, *values])
    header = ["trained with", "world", "steps", "rollouts", "generated tokens", *(title for _, title in _MEASURES)]
    return table(header, rows)


def _panel(
    title: str, metric: str, worlds: Mapping[int, Mapping[str, Record]], algorithms: Mapping[str, tuple[str, bool]]
) -> PicturePanel:
    curves, seen = [], set()
    for own in worlds.values():
        for label, record in own.items():
            algorithm, several = algorithms[label]
            shown = "" if label in seen else label
            seen.add(label)
            points = record.curve(metric, TOKENS)
            curves.append(Curve(shown, points, _COLOURS[algorithm], dashed=several, thin=not shown))
    return PicturePanel(title, "generated tokens", "pass@1", curves)


def hints(evidence: Evidence) -> Section:
    """How far the teacher is from the policy at each turn, by what it is told and where."""
    runs = evidence.finished("hints")
    if not runs:
        return not_run(evidence, "hints")
    rows = []
    for spec, record in runs:
        told, at = spec.group, spec.label
        cells = [[number(_mean(record, f"{m}/turn_{t}"), 3) for t in _TURNS] for m in _GAPS]
        rows.append([told, at, *cells[0], *cells[1]])
    header = ["the teacher is told", "at"]
    header += [f"{what}, turn {turn}" for what in _GAPS.values() for turn in _TURNS]
    _, record = runs[0]
    solved = [number(_mean(record, f"train/pass_rate/turn_{turn}")) for turn in _TURNS]
    text = [
        opening(evidence, "hints"),
        table(header, rows),
        f"Solved by the policy at the first turn, within two and within three: {listed(solved)} "
        f"({record.train['generations'][-1]} rollouts). Divergence: Jensen-Shannon, nats per token that has a teacher; "
        "gain: mean of log q − log π of the sampled tokens, negative where the teacher would not have written them.",
    ]
    title = evidence.studies.parts["hints"].title
    return Section(title, "\n\n".join(text), [], [r for _, r in runs])


_TURNS = (1, 2, 3)
_GAPS = {"distillation/loss": "divergence", "distillation/teacher_gain": "gain"}


def _mean(record: Record, metric: str) -> float:
    """Over the steps, each of which has the same number of rollouts."""
    values: Sequence[float | None] = record.train.get(metric, [])
    return statistics.mean(value for value in values if value is not None)
