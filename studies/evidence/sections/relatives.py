"""The relatives of SDPO beside it and GRPO, and SDFT beside supervised fine-tuning on two tasks in sequence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sdpo.evaluation.bootstrap import bootstrap_mean
from sdpo.report.figures import GENERATIONS
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, interval, last, number
from studies.evidence.pictures import FREE, Picture, PicturePanel
from studies.evidence.reaching import Passes
from studies.evidence.record import Record
from studies.evidence.sections.common import (
    OUTCOME_NOTE,
    SOLID,
    curve,
    group_panel,
    name,
    not_run,
    opening,
    outcome_table,
)
from studies.evidence.settings import area
from studies.markdown_table import table
from studies.sequence import KNOWN

_TASKS = {"lists": "lists (first)", "texts": "texts (second)"}
FIRST_TASK, _SECOND_TASK = "lists_held_out", "texts_held_out"
_ALIKE = 0.05  # pass@1 after the first task
_MEASURED = {f"{task}_{dataset}": (task, dataset) for task in _TASKS for dataset in DATASETS}


def section(evidence: Evidence) -> Section:
    return _members(evidence, "relatives")


def variants(evidence: Evidence) -> Section:
    return _members(evidence, "variants")


def other_problem(evidence: Evidence) -> Section:
    return _members(evidence, "claims")


def _members(evidence: Evidence, part: str) -> Section:
    """Algorithms beside each other on several worlds."""
    runs = evidence.finished(part)
    if not runs:
        return not_run(evidence, part)
    members: dict[str, list[tuple[int, Record]]] = {}
    for spec, record in runs:
        label = name(spec.algorithm) if spec.label == spec.variant else spec.label
        members.setdefault(label, []).append((spec.world, record))
    named = [(f"{label}, world {world}", record) for label, own in members.items() for world, record in own]
    best = sorted(members, key=lambda label: -_held_out([record for _, record in members[label]]))
    rows_of_panels = -(-len(best) // len(FREE))
    each = -(-len(best) // rows_of_panels)  # a colour means one member within a panel
    panels = [
        group_panel(
            f"world {world}", [(label, r) for label in best[i : i + each] for w, r in members[label] if w == world]
        )
        for i in range(0, len(best), each)
        for world in dict.fromkeys(spec.world for spec, _ in runs)
    ]
    rows = [_means(label, [record for _, record in own]) for label, own in members.items()]
    rows.sort(key=lambda row: row[-1], reverse=True)
    header = ["", "worlds", "mean training pass@1", *(f"{TITLES[d]} pass@1, last" for d in DATASETS)]
    means = "Means over worlds, best on held-out problems first:\n\n" + table(header, rows)
    text = [opening(evidence, part), means, outcome_table(named), OUTCOME_NOTE]
    title = evidence.studies.parts[part].title
    picture = Picture(part, title, f"pass@1 against generations. {SOLID}", panels, 3)
    return Section(title, "\n\n".join(text), [picture], [record for _, record in runs])


def _held_out(records: Sequence[Record]) -> float:
    return statistics.mean(last(record, "held_out").value for record in records)


def _means(label: str, records: Sequence[Record]) -> list[object]:
    lasts = (statistics.mean(last(r, d).value for r in records) for d in DATASETS)
    return [label, len(records), number(statistics.mean(map(area, records)), 3), *(number(v) for v in lasts)]


def sequence(evidence: Evidence) -> Section:
    runs = evidence.finished("sequence")
    if not runs:
        return not_run(evidence, "sequence")
    rows, totals = [], []
    for algorithm in dict.fromkeys(spec.algorithm for spec, _ in runs):
        own = [(spec, record) for spec, record in runs if spec.algorithm == algorithm]
        for data, (task, dataset) in _MEASURED.items():
            means = []
            for spec, record in own:
                passes, switch = Passes.of(record, data), switch_of(record, data)
                points = [bootstrap_mean(passes.values[e]) for e in (0, switch, -1)]
                means.append([point.value for point in points])
                rows.append([f"{name(algorithm)}, world {spec.world}", _TASKS[task], TITLES[dataset]])
                rows[-1] += map(interval, points)
            before, middle, end = (statistics.mean(values) for values in zip(*means, strict=True))
            lost = number(middle - end) if task == "lists" else "–"
            values = (number(before), number(middle), number(end), lost)
            totals.append([name(algorithm), _TASKS[task], TITLES[dataset], *values])
    header = ["", "task", "problems", "before", "after the first task", "after the second"]
    text = [
        opening(evidence, "sequence"),
        "pass@1, means over worlds; lost: of the first task while the second was learned:\n\n"
        + table([*header, "lost"], totals),
        f"Each world, with intervals over problems:\n\n{table(header, rows)}",
    ]
    title = evidence.studies.parts["sequence"].title
    panels = [_panel(data, task, dataset, runs) for data, (task, dataset) in _MEASURED.items()]
    caption = "pass@1 against demonstrations or responses; the second task begins in the middle. A line for each world."
    picture = Picture("sequence", title, caption, panels)
    return Section(title, "\n\n".join(text), [picture], [record for _, record in runs])


def sequence_tuning(evidence: Evidence) -> Section:
    """What is learned and what is forgotten, for each configuration on one world."""
    part = "sequence-tuning"
    runs = evidence.finished(part)
    if not runs:
        return not_run(evidence, part)
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for spec, record in runs:
        first, second, known = (Passes.of(record, data).curve for data in (FIRST_TASK, _SECOND_TASK, KNOWN))
        learned, left = first[switch_of(record, FIRST_TASK)], first[-1]
        numbers = (learned, left, learned - left, second[-1], known[0], known[-1])
        found.setdefault(name(spec.algorithm), {})[spec.label] = numbers
    rows = [[who, label, *map(number, numbers)] for who, own in found.items() for label, numbers in own.items()]
    header = ["", "settings", "first task, learned", "left at the end", "lost", "second task, learned"]
    header += ["known words, before", "at the end"]
    text = [
        opening(evidence, part),
        f"Held-out pass@1 of the two tasks, and pass@1 of what was known before:\n\n{table(header, rows)}",
        *_alike(found),
    ]
    declared = evidence.studies.parts[part]
    return Section(declared.title, "\n\n".join(text), [], [record for _, record in runs])


def _alike(found: dict[str, dict[str, tuple[float, ...]]]) -> list[str]:
    """SDFT beside the run of SFT that had learned the first task most nearly as well."""
    rows = []
    for label, own in found.get("SDFT", {}).items():
        other = min(found.get("SFT", {}).items(), key=lambda run: abs(run[1][0] - own[0]), default=None)
        if other is not None and abs(other[1][0] - own[0]) <= _ALIKE:
            pairs = ((own[i], other[1][i]) for i in (0, 2, 3, 5))
            rows.append([label, other[0], *(f"{number(a)} / {number(b)}" for a, b in pairs)])
    if not rows:
        return []
    header = ["SDFT", "SFT", "first task, learned", "lost", "second task, learned", "known words, at the end"]
    alike = f"Runs that had learned the first task alike (within {number(_ALIKE)}), SDFT / SFT:"
    return [f"{alike}\n\n{table(header, rows)}"]


def switch_of(record: Record, data: str) -> int:
    """Index of the first evaluation at which half of the steps were done: the second task begins there."""
    steps = record.problems[data].steps
    return next(e for e, step in enumerate(steps) if 2 * step >= steps[-1])


def _panel(data: str, task: str, dataset: str, runs) -> PicturePanel:
    curves, seen = [], []
    for spec, record in runs:
        label = "" if spec.algorithm in seen else name(spec.algorithm)
        seen += [spec.algorithm] if label else []
        colour = FREE[seen.index(spec.algorithm)]
        curves.append(curve(record, data, label, colour, dashed=spec.algorithm == "sft", thin=not label))
    return PicturePanel(f"{_TASKS[task]}, {TITLES[dataset]} problems", GENERATIONS, "pass@1", curves)
