"""Numbers as people read them."""

from __future__ import annotations

import math

_BARS = "▁▂▃▄▅▆▇█"


def number(value: float | None) -> str:
    """Three significant digits, thousands separated; whole numbers whole: 7, 0.0123, 18.2, 2,213, 1.2e-06; none: –."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    size = abs(value)
    if value == int(value) or size >= 100:
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def share(value: float | None) -> str:
    """A rate between 0 and 1, two digits: 0.34."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def sparkline(values: list[float], width: int, low: float | None = None, high: float | None = None) -> str:
    """Values as little bars; means of neighbours if there are more than `width`; what is not finite is a gap."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        chunks = [[v for v in values[a:b] if math.isfinite(v)] for a, b in zip(edges, edges[1:], strict=False)]
        values = [sum(chunk) / len(chunk) if chunk else math.nan for chunk in chunks]
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return " " * len(values)
    low = min(known) if low is None else low
    high = max(known) if high is None else high
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        _BARS[min(len(_BARS) - 1, max(0, round((v - low) * scale)))] if math.isfinite(v) else " " for v in values
    )
