"""A comparison as a report on W&B's server: its headline, pass@k against generations, its tables.

W&B draws the charts from the runs themselves.  A report needs its server; here it is only composed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sdpo.errors import UserError
from sdpo.report.compare import Comparison
from sdpo.report.curves import by_label
from sdpo.report.drawing import styles
from sdpo.report.figures import GENERATIONS, display
from sdpo.report.runs import Run, measured_pass_at_k
from sdpo.report.wandb_page import tables
from sdpo.tracking.metric_names import dataset_title
from sdpo.tracking.wandb_logger import Place, choose_mode

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import PanelGrid, Report

_LONGEST = 128  # characters of a title
_WIDTH, _HEIGHT = 12, 8  # of a chart; a row of them is 24 wide


def check() -> None:
    """Raises UserError where no report could be written."""
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError(
            "--wandb-report needs the package wandb-workspaces, which is not installed. Install it: "
            "pip install wandb-workspaces."
        )
    if (mode := choose_mode()) != "online":
        raise UserError(
            f"--wandb-report writes to W&B's server, and W&B is {mode} here. Log in (wandb login, or WANDB_API_KEY) "
            "and unset WANDB_MODE; --wandb alone records the comparison offline."
        )


def compose(comparisons: Sequence[Comparison], place: Place) -> Report:
    """The report, not saved yet: the first comparison, then those kept apart.

    place: of the run that has the comparison's tables and page; the compared runs are looked for in its project.
    """
    from wandb_workspaces.reports.v2 import H2, Link, MarkdownBlock, P, Report

    title = comparisons[0].title
    blocks = [P(["Tables, curves and the page are in the run ", Link(text=place.name, url=place.url), "."])]
    for number, found in enumerate(comparisons):
        if found.apart is not None:
            blocks += [H2(found.title), P(f"Kept apart: {'; '.join(found.apart.differs)}.")]
        elif number == 0 and len(title) > _LONGEST:
            blocks.append(P(title))
        blocks += [P(text) for text in found.sentences]
        there = [run for run in found.runs if _is_there(run, place.project)]
        if there:
            blocks.append(_charts(there))
        if missing := [run.name for run in found.runs if run not in there]:
            blocks.append(P(f"Not in the charts, because they are not in this project: {', '.join(missing)}."))
        blocks += [MarkdownBlock("\n".join(_markdown(name, *table))) for name, table in tables(found).items()]
    short = title if len(title) <= _LONGEST else title[: _LONGEST - 1] + "…"
    return Report(entity=place.entity, project=place.project, title=short, blocks=blocks, width="fluid")


def _is_there(run: Run, project: str) -> bool:
    return bool(run.info.wandb_id) and run.recipe.get("tracking", {}).get("project", project) == project


def _charts(runs: Sequence[Run]) -> PanelGrid:
    """A chart per pass@k.  Each label is a run set that is one line: the mean over its seeds, with their range."""
    from wandb_workspaces.reports.v2 import Layout, LinePlot, Metric, PanelGrid, Runset, RunsetGroup, RunsetGroupKey

    groups = by_label(runs)
    runsets, colours = [], {}
    for (label, members), (colour, _) in zip(groups.items(), styles(list(groups)).values(), strict=True):
        name, ids = display(label), [run.info.wandb_id for run in members]
        runsets.append(Runset(name=name, filters=f"ID in {ids}", groupby=["Group"]))
        for group in {run.info.recipe for run in members}:
            colours[RunsetGroup(name, (RunsetGroupKey(Metric("Group"), group),))] = colour
    panels = [
        LinePlot(
            title=f"{dataset_title(metric.dataset)}, {metric.title}",
            x="generations",
            y=[metric.key],
            title_x=GENERATIONS,
            title_y=metric.title,
            range_y=(0, 1),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=Layout(x=place % 2 * _WIDTH, y=place // 2 * _HEIGHT, w=_WIDTH, h=_HEIGHT),
        )
        for place, metric in enumerate(measured_pass_at_k(runs))
    ]
    return PanelGrid(runsets=runsets, panels=panels, custom_run_colors=colours)


def _markdown(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"**{name}**\n"
    for row in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
