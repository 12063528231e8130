"""Several runs beside each other, made from their folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdpo.errors import UserError
from sdpo.report import reach_tables, tables
from sdpo.report.curves import by_label
from sdpo.report.data import comparison_data
from sdpo.report.figures import Figure, comparison_figures, display
from sdpo.report.groups import Group, comparable, differences, group
from sdpo.report.labels import labels
from sdpo.report.notes import warnings
from sdpo.report.page import draw_all, render
from sdpo.report.runs import Run, load_run
from sdpo.report.select import Chosen
from sdpo.tracking.disk import atomic_write, disk_errors

_APART = "apart-{}"


@dataclass(frozen=True)
class Apart:
    """Runs that are no comparison with those of the first page: how they differ, and where they are shown."""

    runs: list[str]
    differs: list[str]
    page: str
    title: str


@dataclass(frozen=True)
class Comparison:
    """What belongs together, and the page that shows it.  `apart`: what differs from the first one, which has none."""

    title: str
    runs: list[Run]
    page: Path
    sentences: list[str]
    figures: list[Figure]
    reach: list[reach_tables.ReachTable]
    scores: list[tables.ScoreTable]
    settings: tables.ComparedSettings
    apart: Apart | None = None


def compare(chosen: Sequence[Chosen], out: Path) -> list[Comparison]:
    """Compare runs: a page, `index.html`, in `out` for those that one looks at first, in `apart-<n>` below it for each
    set with another model, other data, another evaluation or budget.

    PNGs and data.json (what the figures show) lie beside each page; what an earlier comparison left there is replaced.
    Nothing but the run folders is read.  Raises `UserError` if there is nothing to compare: no runs, no rows, or two
    runs of one configuration and seed that were both named.
    """
    loaded = [load_run(each.path, each.label) for each in chosen]
    if not loaded:
        raise UserError("There are no runs to compare. Make one with: make train RECIPE=livecodebench")
    with_rows = [run for run in loaded if run.rows]
    if not with_rows:
        raise UserError(
            f"None of the runs has recorded a step yet: {', '.join(run.name for run in loaded)}. "
            f"Wait for the first one, or start it with: make train RECIPE={loaded[0].info.recipe}"
        )
    groups, notes = group(with_rows, [each.path for each in chosen if each.by_name])
    empty = [run for run in loaded if not run.rows]
    sets = [_labelled(members) for members in comparable(groups)]
    _clear(out)
    apart = [
        Apart([r.name for r in runs], differences(runs[0], sets[0][0]), f"{_APART.format(n)}/index.html", _title(runs))
        for n, runs in enumerate(sets[1:], 1)
    ]
    first = _write(sets[0], out, [*notes, *warnings([*sets[0], *empty])], apart)
    rest = []
    for each, runs in zip(apart, sets[1:], strict=True):
        note = f"Kept apart from {first.title}: {'; '.join(each.differs)}."
        rest.append(replace(_write(runs, out / Path(each.page).parent, [note, *warnings(runs)], []), apart=each))
    return [first, *rest]


def _labelled(groups: Sequence[Group]) -> list[Run]:
    names = labels(groups)
    return [replace(run, label=label) for one, label in zip(groups, names, strict=True) for run in one.runs]


def _title(runs: Sequence[Run]) -> str:
    recipes = dict.fromkeys(run.info.recipe for run in runs)
    return f"{' and '.join(display(label) for label in by_label(runs))} on {', '.join(recipes)}"


def _write(runs: list[Run], out: Path, notes: list[str], apart: list[Apart]) -> Comparison:
    """The page of runs of one setup."""
    figures = comparison_figures(runs)
    reach, scores = reach_tables.reach_tables(runs), tables.score_tables(runs)
    content = {
        "title": _title(runs),
        "sentences": [text for table in reach if (text := reach_tables.sentence(table))],
        "warnings": notes,
        "apart": apart,
        "reach": reach,
        "settings": tables.settings(runs),
    }
    with disk_errors(out, 4096):
        out.mkdir(parents=True, exist_ok=True)
    for figure, png in draw_all(figures, runs):
        atomic_write(out / f"{figure.name}.png", png)
    atomic_write(out / "data.json", comparison_data(runs, figures, content, scores))
    page = out / "index.html"
    atomic_write(page, render("compare.html.jinja", runs, figures, scores, **content))
    return Comparison(content["title"], runs, page, content["sentences"], figures, reach, scores, content["settings"])


def _clear(out: Path) -> None:
    """Remove what an earlier comparison left, and nothing else."""
    for folder in (*out.glob(_APART.format("*")), out):
        for old in (*folder.glob("*.png"), folder / "data.json", folder / "index.html"):
            old.unlink(missing_ok=True)
        if folder != out and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
