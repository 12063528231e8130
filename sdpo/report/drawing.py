"""Figures as PNGs; `draw_panel` draws those of pages, too (`sdpo.report.svg`)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from sdpo.config.registry import ALGORITHMS
from sdpo.report.figures import Figure, Line, Panel, display

# Okabe and Ito's palette, told apart with every common kind of colour blindness.  A bundled algorithm keeps its colour
# on every page; line styles differ as well, for prints in grey.
_STYLES = [
    ("#0072B2", "-"),
    ("#D55E00", (0, (5, 1.5))),
    ("#009E73", (0, (5, 1, 1, 1))),
    ("#CC79A7", (0, (1.5, 1))),
    ("#56B4E9", "-"),
    ("#E69F00", (0, (5, 1.5))),
]
_FIXED = dict(zip(ALGORITHMS, _STYLES, strict=False))
_FREE = [("#E69F00", "-"), ("#56B4E9", (0, (5, 1.5))), ("#009E73", "-"), ("#CC79A7", "-"), ("#000000", (0, (1.5, 1)))]
_STACK = ["#009E73", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#F0E442", "#999999", "#000000"]
_WIDTH, _HEIGHT, DPI = 5.4, 3.7, 144  # inches of a panel where two share the page's width, dots per inch
_NAMED_TASKS = 24  # that a matrix has room for the names of
_MARGIN = 0.02  # beyond 0 and 1, so that a curve on the edge shows whole
FONTS = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "legend.fontsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
}


def styles(labels: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """(colour, line style) of each label."""
    free = iter(_FREE * (1 + len(labels) // len(_FREE)))
    return {label: _FIXED.get(label) or next(free) for label in labels}


def draw(figure: Figure, footer: str) -> bytes:
    """The figure as a PNG; `footer` (hardware, commit, command) stands in small print below it."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    # One panel alone is drawn wider: it has the page for itself.
    width, height = (_WIDTH * 2, _HEIGHT * rows + 0.9) if columns > 1 else (7.6, 4.2 * rows + 0.5)
    with matplotlib.rc_context(FONTS):
        canvas = Canvas(figsize=(width, height), dpi=DPI, layout="constrained")
        canvas.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(rows, columns, squeeze=False).flatten()
        for axis, panel in zip(axes, figure.panels, strict=False):
            draw_panel(axis, panel)
            if len(figure.panels) > 1:
                axis.set_title(panel.title, loc="left", fontweight="bold")
        for axis in axes[len(figure.panels) :]:
            axis.set_visible(False)
        handles = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        if handles:
            canvas.legend(
                handles.values(), handles.keys(), loc="outside upper left", ncols=min(4, len(handles)), frameon=False
            )
        small = {"fontsize": 7.5, "color": "#555555", "x": 0.01, "ha": "left", "parse_math": False}
        canvas.supxlabel(_wrap(footer, int(width * 17)), **small)
        buffer = BytesIO()
        canvas.savefig(buffer, format="png", metadata={"Description": footer, "Title": figure.title})
    return buffer.getvalue()


def draw_panel(axis: Any, panel: Panel) -> None:
    """The panel on a pair of axes of matplotlib."""
    from matplotlib.ticker import FuncFormatter

    {"stack": _stack, "matrix": _matrix}.get(panel.kind, _curves)(axis, panel)
    axis.set(xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.kind == "matrix":
        return
    low, high = panel.y_limits
    if panel.kind == "lines" and (low, high) == (0.0, 1.0):
        low, high = -_MARGIN, 1 + _MARGIN
    axis.set_ylim(low, high)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))


def legend(panel: Panel) -> dict[str, tuple[str, Any]]:
    """What the panel's colours mean: name → (colour, line style; None for an area)."""
    if panel.kind == "matrix":
        return {}
    if panel.kind == "stack":
        free = (_STACK[i % len(_STACK)] for i in range(len(panel.lines)))
        return {line.label: (line.colour or colour, None) for line, colour in zip(panel.lines, free, strict=True)}
    groups = _by_label(panel)
    return {_name(label, groups[label]): style for label, style in styles(list(groups)).items()}


def _by_label(panel: Panel) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in panel.lines:
        groups.setdefault(line.label, []).append(line)
    return groups


def _thick(lines: Sequence[Line]) -> Line:
    """The mean of the seeds, or the first of them."""
    return next((line for line in lines if line.seed is None), lines[0])


def _name(label: str, lines: Sequence[Line]) -> str:
    thick = _thick(lines)
    if thick.seed is None:
        return display(label) + (f" (mean of {len(lines) - 1} seeds)" if len(lines) > 1 else "")
    return f"{display(label)} (seed {thick.seed})"


def _curves(axis: Any, panel: Panel) -> None:
    for lines, (name, (colour, style)) in zip(_by_label(panel).values(), legend(panel).items(), strict=True):
        thick = _thick(lines)
        for line in lines:
            if line is not thick:
                axis.plot(*zip(*line.points, strict=True), color=colour, linewidth=0.9, alpha=0.45)
        marker = "o" if len(thick.points) <= 30 else None
        xs, ys = zip(*thick.points, strict=True)
        axis.plot(xs, ys, color=colour, linestyle=style, linewidth=2.4, marker=marker, markersize=4, label=name)
        if thick.low:
            axis.fill_between(xs, thick.low, thick.high, color=colour, alpha=0.15, linewidth=0)


def _stack(axis: Any, panel: Panel) -> None:
    xs = [x for x, _ in panel.lines[0].points]
    values = [[y for _, y in line.points] for line in panel.lines]
    if len(xs) == 1:  # an area needs two points
        xs, values = [0.0, xs[0]], [[y[0], y[0]] for y in values]
    meaning = legend(panel)
    axis.stackplot(xs, *values, labels=list(meaning), colors=[colour for colour, _ in meaning.values()], alpha=0.85)


def _matrix(axis: Any, panel: Panel) -> None:
    steps = sorted({x for line in panel.lines for x, _ in line.points})
    shares = [[dict(line.points).get(step, math.nan) for step in steps] for line in panel.lines]
    fields = axis.pcolormesh(shares, cmap="viridis", vmin=0.0, vmax=1.0)
    axis.figure.colorbar(fields, ax=axis, label="share that passed")
    axis.invert_yaxis()
    axis.grid(False)
    every = max(1, len(steps) // 8)
    axis.set_xticks([i + 0.5 for i in range(0, len(steps), every)], [f"{step:,g}" for step in steps[::every]])
    if len(panel.lines) <= _NAMED_TASKS:
        axis.set_yticks([i + 0.5 for i in range(len(panel.lines))], [line.label for line in panel.lines], fontsize=7)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))
