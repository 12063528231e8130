"""Figures of the page as data, and their drawing in the style of the reports."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from sdpo.report.drawing import DPI, FONTS

# Okabe and Ito's palette (see sdpo.report.drawing); SDPO and GRPO keep their colours everywhere.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
)  # fmt: skip
COLOURS = {"sdpo": BLUE, "grpo": ORANGE}
FREE = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK)
_WIDTH, _HEIGHT = 5.0, 3.6  # inches of a panel


@dataclass(frozen=True)
class Curve:
    """A line; without a label it is not in the legend."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its interval; an infinite `high` is drawn as an arrow."""

    label: str
    value: float
    colour: str
    low: float | None = None
    high: float | None = None
    series: str = ""  # bars of one label beside each other, one of each series


@dataclass(frozen=True)
class PicturePanel:
    """A pair of axes with curves or with bars."""

    title: str
    x_label: str = ""
    y_label: str = ""
    curves: list[Curve] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    y_limits: tuple[float | None, float | None] = (0.0, 1.0)
    line: float | None = None  # a horizontal line for comparison


@dataclass(frozen=True)
class Picture:
    """`name` becomes the file's name; the caption says how the numbers were made."""

    name: str
    title: str
    caption: str
    panels: list[PicturePanel]
    columns: int = 2


def draw(picture: Picture, footer: str) -> bytes:
    """The picture as a PNG; `footer` (hardware, commit, command) stands in small print below it."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(picture.columns, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    width = _WIDTH * max(columns, 1.5)
    with matplotlib.rc_context(FONTS):
        canvas = Figure(figsize=(width, _HEIGHT * rows + 0.5), dpi=DPI, layout="constrained")
        canvas.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(rows, columns, squeeze=False).flatten()
        for axis, panel in zip(axes, picture.panels, strict=False):
            _curves(axis, panel) if panel.curves else _bars(axis, panel)
            axis.set_title(panel.title, loc="left", fontweight="bold")
            axis.set(xlabel=panel.x_label, ylabel=panel.y_label)
            axis.set_ylim(*panel.y_limits)
            if panel.line is not None:
                axis.axhline(panel.line, color="#888888", linewidth=1.0, linestyle=":")
        for axis in axes[len(picture.panels) :]:
            axis.set_visible(False)
        small = {"fontsize": 7.5, "color": "#555555", "x": 0.01, "ha": "left", "parse_math": False}
        canvas.supxlabel("\n".join(textwrap.wrap(footer, int(width * 17), break_on_hyphens=False)), **small)
        return png(canvas, picture.title, footer)


def png(canvas: Any, title: str, footer: str) -> bytes:
    buffer = BytesIO()
    canvas.savefig(buffer, format="png", metadata={"Title": title, "Description": footer, "Software": None})
    return buffer.getvalue()


def _curves(axis: Any, panel: PicturePanel) -> None:
    from matplotlib.ticker import FuncFormatter

    for curve in panel.curves:
        xs, ys = zip(*curve.points, strict=True)
        axis.plot(
            xs,
            ys,
            color=curve.colour,
            linestyle=(0, (4, 1.5)) if curve.dashed else "-",
            linewidth=0.9 if curve.thin else 2.0,
            alpha=0.5 if curve.thin else 1.0,
            label=curve.label or None,
        )
    if any(curve.label for curve in panel.curves):
        axis.legend(frameon=False, fontsize=9, loc="best")
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))


def _bars(axis: Any, panel: PicturePanel) -> None:
    labels = list(dict.fromkeys(bar.label for bar in panel.bars))
    series = list(dict.fromkeys(bar.series for bar in panel.bars))
    width = 0.8 / max(1, len(series))
    top = panel.y_limits[1] or max((bar.value for bar in panel.bars), default=1.0) * 1.1
    shown = set()
    for bar in panel.bars:
        x = labels.index(bar.label) + (series.index(bar.series) - (len(series) - 1) / 2) * width
        name = bar.series if bar.series not in shown else None
        shown.add(bar.series)
        axis.bar(x, bar.value, width * 0.92, color=bar.colour, alpha=0.85, label=name or None)
        if bar.low is not None and bar.high is not None:
            high = bar.high if math.isfinite(bar.high) else top
            axis.plot([x, x], [bar.low, high], color="#333333", linewidth=1.2)
            if not math.isfinite(bar.high):
                axis.plot([x], [high], marker="^", color="#333333", markersize=6, clip_on=False)
    long = max((len(label) for label in labels), default=0) * len(labels) > 60
    axis.set_xticks(range(len(labels)), labels, rotation=20 if long else 0, ha="right" if long else "center")
    axis.grid(axis="x", visible=False)
    if any(series):
        axis.legend(frameon=False, fontsize=9, loc="best")
