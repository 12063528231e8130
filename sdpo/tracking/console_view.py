"""What the console draws: from the state of a run to rich renderables and to plain lines."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sdpo.tracking import metric_names as names
from sdpo.tracking import outcomes
from sdpo.tracking.format import duration, number, share, sparkline

_SPARK = 24  # characters
_TITLE_WIDTH = 16  # of the longest title of a metric
_SHOWN = (
    names.PASS_RATE,
    names.DIVERGENCE,
    names.STUDENT_ENTROPY,
    names.TEACHER_ENTROPY,
    names.LENGTH,
    names.THROUGHPUT,
)


@dataclass
class PhaseState:
    """A phase that is going on."""

    name: str
    total: int | None = None
    done: int = 0
    announce: bool = False
    started: float = field(default_factory=time.monotonic)
    printed: float = 0.0
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def progress(self) -> str:
        return f"{self.done:,}/{self.total:,}" if self.total else (f"{self.done:,}" if self.done else "")


@dataclass
class RunState:
    """All that the console knows of a run."""

    name: str
    total_steps: int
    step: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    phases: list[PhaseState] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    last_step: float | None = None
    intervals: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def begin_steps(self) -> None:
        """From here on the time is the first step's: start-up is not part of the estimate."""
        if self.last_step is None:
            self.last_step = time.monotonic()

    def add_step(self, metrics: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self.last_step is not None:
            self.intervals.append(now - self.last_step)
        self.last_step = now
        self.step = int(metrics.get("step", self.step + 1))
        self.metrics = dict(metrics)
        for shown in _SHOWN:
            if shown.key in metrics:
                value = metrics[shown.key]
                self.history.setdefault(shown.key, []).append(math.nan if value is None else float(value))

    @property
    def remaining(self) -> float | None:
        """Seconds until the last step, from the mean of the last ones (evaluations included); None before the first."""
        if not self.intervals or self.last_step is None:
            return None
        mean = sum(self.intervals) / len(self.intervals)
        spent = min(mean, time.monotonic() - self.last_step)
        return max(0.0, mean * (self.total_steps - self.step) - (spent if self.step < self.total_steps else 0.0))


def evaluation_lines(metrics: Mapping[str, Any]) -> list[str]:
    """One line per dataset: `held-out problems  pass@1 0.22 [0.15, 0.30]  pass@4 0.41 [0.33, 0.50]`."""
    lines: dict[str, list[str]] = {}
    for metric in names.pass_at_k_metrics(metrics):
        low, high = metrics.get(metric.low_key), metrics.get(metric.high_key)
        interval = f" [{share(low)}, {share(high)}]" if low is not None and high is not None else ""
        lines.setdefault(metric.dataset, []).append(f"{metric.title} {share(metrics[metric.key])}{interval}")
    return [f"{names.dataset_title(dataset)}  " + "  ".join(parts) for dataset, parts in lines.items()]


def _verdicts(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    counts = {verdict.replace("_", " "): count for verdict, count in names.part(metrics, "verdict").items()}
    # In a fixed order, so that the line stands still while its numbers change.
    return [(verdict, counts[verdict]) for verdict in outcomes.colours(counts) if counts[verdict]]


def _phase_times(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(phase.replace("_", " "), seconds) for phase, seconds in names.part(metrics, "time").items()]


def plain_step(state: RunState) -> str:
    """A step as one line of a log."""
    m = state.metrics
    width = len(str(state.total_steps))
    parts = [f"step {state.step:>{width}}/{state.total_steps}"]
    if names.PASS_RATE.key in m:
        parts.append(f"pass rate {share(m[names.PASS_RATE.key])}")
    if names.DIVERGENCE.key in m:
        parts.append(f"divergence {number(m[names.DIVERGENCE.key])}")
    if names.STUDENT_ENTROPY.key in m:
        entropy = f"entropy {number(m[names.STUDENT_ENTROPY.key])}"
        teacher = m.get(names.TEACHER_ENTROPY.key)
        parts.append(entropy + (f" (teacher {number(teacher)})" if teacher is not None else ""))
    if names.LENGTH.key in m:
        parts.append(f"length {number(m[names.LENGTH.key])}")
    if verdicts := _verdicts(m):
        parts.append(", ".join(f"{verdict} {number(count)}" for verdict, count in verdicts))
    if times := _phase_times(m):
        parts.append(", ".join(f"{phase} {duration(seconds)}" for phase, seconds in times))
    if names.THROUGHPUT.key in m:
        parts.append(f"{number(m[names.THROUGHPUT.key])} tokens/s")
    if state.remaining is not None and state.step < state.total_steps:
        parts.append(f"{duration(state.remaining)} left")
    return " | ".join(parts)


def plain_progress(phase: PhaseState) -> str:
    progress = f" {phase.progress}" if phase.progress else ""
    return f"  {phase.name} …{progress} ({duration(phase.elapsed)})"


def panel(state: RunState) -> RenderableType:
    """The live panel: what happens now, how long it will take, how the run does."""
    rows: list[RenderableType] = [_now(state)]
    if state.metrics:
        rows += [Text(), _numbers(state)]
    if verdicts := _verdicts(state.metrics):
        rows.append(_bar_of_verdicts(verdicts))
    if times := _phase_times(state.metrics):
        rows.append(_pairs("time", [(phase, duration(seconds), "cyan") for phase, seconds in times]))
    if state.evaluation:
        at = f" (step {state.evaluation['step']})" if "step" in state.evaluation else ""
        rows += [Text(), *(Text(line + at, style="bold") for line in evaluation_lines(state.evaluation))]
    return Panel(
        Group(*rows),
        title=f"[bold]{escape(state.name)}",
        title_align="left",
        subtitle=_clock(state),
        subtitle_align="right",
        box=box.ROUNDED,
    )


def _clock(state: RunState) -> str:
    elapsed = f"{duration(time.monotonic() - state.started)} elapsed"
    if state.remaining is None:
        return elapsed
    return f"{elapsed}, about {duration(state.remaining)} left" if state.step < state.total_steps else elapsed


def _now(state: RunState) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.expand = True
    generations = state.metrics.get("generations")
    text = f"{state.step:,}/{state.total_steps:,} steps"
    if generations is not None:
        text += f", {generations:,} generations"
    bar: RenderableType = _bar(state.total_steps, state.step, "green")
    table.add_row(Text("run", style="bold"), bar, text)
    for phase in list(state.phases):
        bar = _bar(phase.total, phase.done, "cyan") if phase.total else phase.spinner
        progress = ", ".join(filter(None, (phase.progress, duration(phase.elapsed))))
        table.add_row(Text(phase.name, style="cyan"), bar, Text(progress))
    return table


def _bar(total: int, done: int, style: str) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, complete_style=style, finished_style=style)


def _numbers(state: RunState) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim", overflow="ellipsis")
    for shown in _SHOWN:
        values = state.history.get(shown.key)
        if not values:
            continue
        is_rate = shown is names.PASS_RATE
        text = share(values[-1]) if is_rate else number(values[-1])
        # A rate is drawn on the scale 0 … 1, so that the height of its bars means the same in every run.
        line = sparkline(values, _SPARK, 0.0, 1.0) if is_rate else sparkline(values, _SPARK)
        table.add_row(
            shown.title, Text(text, style="bold"), Text(line, style="green" if is_rate else "cyan"), shown.unit
        )
    return table


def _bar_of_verdicts(verdicts: list[tuple[str, float]]) -> RenderableType:
    styles = outcomes.colours(name for name, _ in verdicts)
    return _pairs("verdicts", [(name, number(count), styles[name].terminal) for name, count in verdicts])


def _pairs(title: str, pairs: list[tuple[str, str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, width=_TITLE_WIDTH)
    table.add_column()
    table.add_row(title, _Flow([Text.assemble((name, style), " ", value) for name, value, style in pairs]))
    return table


class _Flow:
    """Texts side by side, as many on a line as fit; a name and its number stay together."""

    def __init__(self, texts: list[Text]) -> None:
        self._texts = texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for text in self._texts:
            if line and line.cell_len + 2 + text.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text.assemble(line, "  " if line else "", text)
        yield line
