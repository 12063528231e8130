"""Figures as a page shows them: one SVG per panel, whose text and lines take the page's colours, light or dark."""

from __future__ import annotations

import io
from typing import Any

from sdpo.report import drawing
from sdpo.report.figures import Figure, Panel

_SIZE = 4.6, 3.1  # inches
_WIDTH = 2.4  # of a curve
# Stand for the page's colours until the SVG is written: matplotlib knows colours only.
_INK, _LINE = "#010203", "#010204"
# Of the palettes, what is too dark on a dark page; base.html.jinja has the other colour.
_DARK = ("#0072b2", "#000000", "#8f3f00", "#8a4a70", "#003f66", "#444444", "#666666")
_RC = drawing.FONTS | {
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "grid.color": _LINE,
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "sdpo",  # the same figure gives the same file
}


def panels(figure: Figure) -> list[tuple[str, str]]:
    """(title, SVG) of each panel; the title is empty where the figure's says it."""
    return [(panel.title if len(figure.panels) > 1 else "", _svg(panel)) for panel in figure.panels]


def _svg(panel: Panel) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_RC):
        canvas = Canvas(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(canvas)
        axis = canvas.subplots()
        drawing.draw_panel(axis, panel)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Title": panel.title})
    text = buffer.getvalue()
    return _themed(text[text.index("<svg") :].replace(_INK, "currentColor").replace(_LINE, "var(--line)"))


def _themed(text: str) -> str:
    """#0072b2 → var(--x0072b2, #0072b2), which a dark page sets."""
    for colour in _DARK:
        text = text.replace(colour, f"var(--x{colour[1:]}, {colour})")
    return text


def legend(figure: Figure) -> list[tuple[str, str, str | None]]:
    """(name, colour, dashes as SVG has them or None for an area) of all curves and areas of the figure."""
    meanings: dict[str, tuple[str, Any]] = {}
    for panel in figure.panels:
        meanings = drawing.legend(panel) | meanings
    return [(name, _themed(colour.lower()), _dashes(style)) for name, (colour, style) in meanings.items()]


def _dashes(style: Any) -> str | None:
    return None if style is None else "" if style == "-" else " ".join(f"{_WIDTH * part:g}" for part in style[1])
