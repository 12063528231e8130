"""From figures and tables to one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jinja2

from sdpo.report import svg
from sdpo.report.drawing import draw
from sdpo.report.figures import Figure, display
from sdpo.report.notes import listed
from sdpo.report.runs import Run
from sdpo.report.tables import ScoreTable
from sdpo.tracking import provenance
from sdpo.tracking.format import duration
from sdpo.tracking.run_info import now

_SEED = re.compile(r"\bseed=\d+", re.IGNORECASE)


def draw_all(figures: Sequence[Figure], runs: Sequence[Run]) -> list[tuple[Figure, bytes]]:
    """Each figure and its PNG, with hardware, commit and command below it."""
    commands = [run.info.command for run in runs]
    if len(runs) > 1:  # commands that differ in the seed alone are shown once
        commands = [_SEED.sub("seed=…", command) for command in commands]
    footer = (
        f"Hardware: {listed(run.info.hardware for run in runs)}. Commit: {listed(run.info.commit for run in runs)}. "
        f"Runs: {listed(commands)}"
    )
    return [(figure, draw(figure, footer)) for figure in figures]


def template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sdpo.report", "pages"),
        autoescape=True,  # responses and feedback are text of a program that a model wrote
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "display": display}
    return environment.get_template(name)


def render(
    name: str,
    runs: Sequence[Run],
    figures: Sequence[Figure],
    scores: Sequence[ScoreTable],
    **content: Any,
) -> bytes:
    """The page of the template `name` as UTF-8, pictures inside."""
    pictures = [(figure, svg.legend(figure), svg.panels(figure)) for figure in figures]
    text = template(name).render(
        runs=runs,
        figures=pictures,
        scores=scores,
        made=now()[:16].replace("T", " "),
        made_by=provenance.command(),
        **content,
    )
    return text.encode()
