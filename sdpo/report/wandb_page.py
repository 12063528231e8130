"""A comparison as a run of W&B: its curves, its tables, and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo.report.compare import Comparison
from sdpo.report.curves import by_label
from sdpo.report.figures import Panel, display
from sdpo.tracking import WandbLogger

_CURVES = "pass_at_k_"  # how the figures begin whose curves can be looked at in W&B


def log(comparisons: Sequence[Comparison], logger: WandbLogger) -> None:
    """The first comparison under plain names, those kept apart under apart-1/…"""
    for number, found in enumerate(comparisons):
        prefix = f"apart-{number}/" if number else ""
        for figure in found.figures:
            for panel in figure.panels if figure.name.startswith(_CURVES) else ():
                logger.curves(f"{prefix}{figure.name}/{panel.title}", panel.title, panel.x_label, _series(panel))
        for name, (columns, rows) in tables(found).items():
            logger.table(prefix + name, columns, rows)
        logger.page(f"{prefix}page", found.page.read_text())


def _series(panel: Panel) -> dict[str, list[tuple[float, float]]]:
    """Label → its mean over the seeds, or its only seed."""
    found = {}
    for line in panel.lines:  # the mean comes after the seeds
        found[display(line.label)] = [(x, y) for x, y in line.points if math.isfinite(y)]
    return found


def tables(found: Comparison) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Name → (columns, rows)."""
    labels = [display(label) for label in by_label(found.runs)]
    content = {
        "differences": (["setting", *found.settings.labels], [[k, *values] for k, values in found.settings.different]),
        "runs": (
            ["run", "label", "seed", "status", "generations", "W&B id"],
            [[r.name, display(r.label), str(r.info.seed), r.info.status, str(r.generations), r.info.wandb_id]
             for r in found.runs],
        ),
    }  # fmt: skip
    for table in found.reach:
        ratios = table.labels[1:]
        rows = [
            [f"{row.threshold:g}", *(row.reached[label].text() for label in table.labels), *map(row.ratio_text, ratios)]
            for row in table.rows
        ]
        columns = [*map(display, table.labels), *(f"{display(label)} ÷ {labels[0]}" for label in ratios)]
        content[f"generations to a pass rate, {table.dataset}"] = (["pass@1", *columns], rows)
    for scores in found.scores:
        columns = [f"{column}, {which}" for column in scores.columns for which in ("best", "at", "last")]
        rows = [[s.label, s.seed, *(v for x in s.scores for v in (x.best, x.best_at, x.last))] for s in scores.rows]
        content[f"scores, {scores.dataset}"] = (["label", "seed", *columns], rows)
    return content
