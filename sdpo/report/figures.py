"""Which figures there are and what they show, as data; `drawing` turns them into pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sdpo.config.registry import ALGORITHMS
from sdpo.report.curves import Points, by_label, mean_band, smooth
from sdpo.report.runs import Run, measured_pass_at_k
from sdpo.tracking import metric_names as names
from sdpo.tracking import outcomes
from sdpo.tracking.format import number

GENERATIONS = "generations (sampled responses)"
_SMOOTHED_STEPS = 5
_FROM_ZERO = (names.STUDENT_ENTROPY, names.TEACHER_ENTROPY, names.DIVERGENCE)


@dataclass(frozen=True)
class Line:
    """One curve; `low` and `high` are its interval, point by point, or empty.  colour: None, by its label."""

    label: str
    seed: int | None  # None: the mean over the seeds
    points: Points
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    colour: str | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    kind "lines" draws curves, "stack" puts them on top of each other, "matrix" draws a row of fields for each line.
    """

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    y_limits: tuple[float | None, float | None] = (None, None)
    kind: str = "lines"


@dataclass(frozen=True)
class Figure:
    """`name` becomes the file's name, `caption` says how the numbers were made."""

    name: str
    title: str
    caption: str
    panels: list[Panel]
    columns: int = 2


def display(label: str) -> str:
    """Names of algorithms as papers write them: sdpo → SDPO; other labels stay."""
    return label.upper() if label in ALGORITHMS else label


def _lines(
    runs: Sequence[Run], curve: Callable[[Run], Points], interval_of: names.PassAtK | None = None, scale: float = 1.0
) -> list[Line]:
    """Each run's curve and, per label, their mean.  A label with one run gets that run's interval instead of a mean."""
    lines = []
    for label, members in by_label(runs).items():
        curves = {run.info.seed: [(x / scale, y) for x, y in curve(run)] for run in members}
        curves = {seed: points for seed, points in curves.items() if any(math.isfinite(y) for _, y in points)}
        if len(curves) == 1:
            (seed, points), run = next(iter(curves.items())), next(run for run in members if run.info.seed in curves)
            ends = (interval_of.low_key, interval_of.high_key) if interval_of else ("", "")
            low, high = ([y for _, y in run.series(key)] for key in ends)
            whole = len(low) == len(high) == len(points)
            lines.append(Line(label, seed, points, low if whole else [], high if whole else []))
            continue
        lines += [Line(label, seed, points) for seed, points in curves.items()]
        if band := mean_band(list(curves.values())):
            points = [(x, y) for x, y, _, _ in band]
            lines.append(Line(label, None, points, [low for *_, low, _ in band], [high for *_, high in band]))
    return lines


def _time_unit(runs: Sequence[Run]) -> tuple[float, str]:
    longest = max((run.wall_clock_s for run in runs), default=0.0)
    for seconds, unit in ((3600.0, "h"), (60.0, "min")):
        if longest >= 3 * seconds:
            return seconds, unit
    return 1.0, "s"


def _mean_note(runs: Sequence[Run]) -> str:
    if any(len(members) > 1 for members in by_label(runs).values()):
        return (
            " Thick: the mean over the seeds, as far as every seed has come; its band goes from the least to the "
            "greatest of them; thin: each seed. Where there is one seed, the band is its interval over problems."
        )
    return " The band is the interval over problems."


def pass_at_k_figure(runs: Sequence[Run], axis: str) -> Figure | None:
    """pass@k against generations, `generated_tokens` or `wall_clock_s`: a row per data set, a column per k."""
    metrics = measured_pass_at_k(runs)
    scale, x_label, against = 1.0, GENERATIONS, "generations"
    note = ""
    if axis == "wall_clock_s":
        scale, unit = _time_unit(runs)
        x_label, against = f"wall clock ({unit})", "wall clock"
        note = " Wall clock includes the evaluations and leaves out start-up."
    if axis == "generated_tokens":
        x_label, against = "generated tokens (of all turns)", "generated tokens"
    panels = []
    for metric in metrics:
        lines = _lines(runs, lambda run, key=metric.key: run.series(key, axis), metric, scale)
        title = f"{names.dataset_title(metric.dataset)}, {metric.title}"
        panels.append(Panel(title, x_label, metric.title, lines, (0.0, 1.0)))
    if not panels:
        return None
    columns = max(sum(1 for m in metrics if m.dataset == dataset) for dataset in {m.dataset for m in metrics})
    caption = "Share of problems solved by at least one of k samples (unbiased estimate)." + note + _mean_note(runs)
    file = "pass_at_k_" + against.replace(" ", "_")
    return Figure(file, f"pass@k against {against}", caption, panels, min(columns, 3))


def parts_figure(runs: Sequence[Run]) -> Figure | None:
    """pass@1 on parts of the data sets, such as the easy problems; None if none was measured."""
    panels = []
    for metric in measured_pass_at_k(runs, parts=True):
        if metric.k == 1:
            lines = _lines(runs, lambda run, key=metric.key: run.series(key), metric)
            panels.append(Panel(names.dataset_title(metric.dataset), GENERATIONS, metric.title, lines, (0.0, 1.0)))
    if not panels:
        return None
    caption = "pass@1 as above, on parts of the problems." + _mean_note(runs)
    return Figure("pass_at_1_parts", "pass@1 by difficulty", caption, panels, 3)


def metric_figure(
    runs: Sequence[Run], name: str, title: str, shown: Sequence[names.Shown], caption: str = "", smoothed: int = 1
) -> Figure | None:
    """One panel for each of `shown` that changes, against generations; None if no run has any."""
    panels, constant = [], []
    for metric in shown:
        lines = _lines(runs, lambda run, key=metric.key: smooth(run.series(key), smoothed))
        values = [y for line in lines for _, y in line.points if math.isfinite(y)]
        if len(values) > 1 and len(set(values)) == 1:
            constant.append(f"{metric.title} ({number(values[0])})")
        elif lines:
            y_label = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
            start = 0.0 if metric in _FROM_ZERO and min(values, default=0.0) >= 0 else None
            limits = (0.0, 1.0) if metric is names.PASS_RATE else (start, None)
            panels.append(Panel(metric.title, GENERATIONS, y_label, lines, limits))
    notes = [caption] if caption else []
    notes += [f"Mean of the last {smoothed} steps at each step."] if smoothed > 1 else []
    notes += [f"Constant, and not drawn: {', '.join(constant)}."] if constant else []
    return Figure(name, title, " ".join(notes), panels) if panels else None


def share_figure(
    run: Run, prefix: str, name: str, title: str, y_label: str, shares: bool, caption: str
) -> Figure | None:
    """The metrics under `prefix/` of one run on top of each other, as shares of their sum or as they are."""
    by_step: dict[int, tuple[float, dict[str, float]]] = {}
    for row in run.rows:  # a step and its evaluation may be two rows
        if "step" in row and (parts := names.part(row, prefix)):
            before = by_step.get(row["step"], (0.0, {}))[1]
            by_step[row["step"]] = (row.get("generations", 0), {**before, **parts})
    points = [(x, parts) for _, (x, parts) in sorted(by_step.items()) if sum(parts.values()) > 0]
    keys = list(dict.fromkeys(key for _, parts in points for key in parts))
    titles = {key.replace("_", " "): key for key in keys}
    palette = {t: c.css for t, c in outcomes.colours(titles).items()} if prefix == "verdict" else dict.fromkeys(titles)
    lines = []
    for title_of, colour in palette.items():
        key = titles[title_of]
        curve = [(float(x), parts.get(key, 0.0) / (sum(parts.values()) if shares else 1.0)) for x, parts in points]
        lines.append(Line(title_of, run.info.seed, curve, colour=colour))
    if not lines:
        return None
    limits = (0.0, 1.0) if shares else (0.0, None)
    return Figure(name, title, caption, [Panel(title, GENERATIONS, y_label, lines, limits, "stack")], 1)


def comparison_figures(runs: Sequence[Run]) -> list[Figure]:
    """What `sdpo compare` shows, in order."""
    figures = [
        pass_at_k_figure(runs, "generations"),
        pass_at_k_figure(runs, "generated_tokens") if any(run.turns > 1 for run in runs) else None,
        pass_at_k_figure(runs, "wall_clock_s"),
        parts_figure(runs),
        *task_figures(runs),
        *learning_figures(runs),
    ]
    return [figure for figure in figures if figure is not None]


def task_figures(runs: Sequence[Run]) -> list[Figure]:
    """For each data set a matrix per label: the pass rate of every task (rows) at every evaluation (columns)."""
    groups = by_label(runs)
    figures = []
    for dataset in dict.fromkeys(name for run in runs for name in run.results):
        rates = {label: _task_rates(members, dataset) for label, members in groups.items()}
        rates = {label: own for label, own in rates.items() if own}
        ease = {task: sum(rate for _, rate in row) / len(row) for task, row in next(iter(rates.values())).items()}
        order = sorted({task: None for own in rates.values() for task in own}, key=lambda task: -ease.get(task, -1.0))
        rows = {label: [Line(task, None, own.get(task, [])) for task in order] for label, own in rates.items()}
        panels = [Panel(display(label), "step", "task", lines, kind="matrix") for label, lines in rows.items()]
        caption = (
            "Share of a task's samples that passed, the mean over the seeds; the tasks in the order of the first "
            "panel's mean, easy ones on top, the same in every panel."
        )
        title = f"pass rate of each task, {names.dataset_title(dataset)}"
        figures.append(Figure(f"tasks_{dataset}", title, caption, panels))
    return figures


def _task_rates(runs: Sequence[Run], dataset: str) -> dict[str, Points]:
    """Task → (step, share of its samples that passed), over all runs that measured it at that step."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for step, result in run.results.get(dataset, {}).items():
            for problem in result.problems:
                found.setdefault(problem.id, {}).setdefault(step, []).append(problem.c / problem.n)
    return {task: [(float(s), sum(v) / len(v)) for s, v in sorted(own.items())] for task, own in found.items()}


def learning_figures(runs: Sequence[Run]) -> list[Figure]:
    """What was seen in the training batches."""
    figures = [
        metric_figure(
            runs,
            "training_pass_rate",
            "pass rate of the training batches",
            [names.PASS_RATE],
            "Share of the sampled responses that passed all tests.",
            _SMOOTHED_STEPS,
        ),
        metric_figure(
            runs,
            "entropies",
            "entropies",
            [names.STUDENT_ENTROPY, names.TEACHER_ENTROPY],
            "Mean entropy of the next-token distribution over the response tokens.",
        ),
        metric_figure(
            runs,
            "response_length",
            "response length",
            [names.LENGTH],
            "Mean number of tokens of a response, its end included.",
        ),
        metric_figure(
            runs, "divergence", "divergence of student and teacher", [names.DIVERGENCE], "As it enters the loss."
        ),
    ]
    return [figure for figure in figures if figure is not None]


def run_figures(run: Run) -> list[Figure]:
    """What the page of a single run shows, in order."""
    figures = [
        pass_at_k_figure([run], "generations"),
        parts_figure([run]),
        *learning_figures([run]),
        share_figure(
            run,
            "verdict",
            "verdicts",
            "verdicts of the training batches",
            "share of responses",
            True,
            "How the sampled responses were graded.",
        ),
        metric_figure([run], "optimiser", "optimiser", [names.GRAD_NORM, names.LEARNING_RATE, names.SAMPLER_KL]),
        share_figure(
            run, "time", "time_per_step", "time per step", "seconds", False, "Seconds that each phase of a step took."
        ),
        metric_figure([run], "throughput", "throughput", [names.THROUGHPUT]),
    ]
    return [figure for figure in figures if figure is not None]
