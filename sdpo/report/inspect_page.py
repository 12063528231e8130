"""inspect.html: every recorded response of a run, with the credit of each token, in one self-contained file."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from sdpo.errors import UserError
from sdpo.report.blocks import Index, embedded, packed
from sdpo.report.figures import display
from sdpo.report.page import template
from sdpo.report.responses import normalizes_by_std, recorded_steps, step_responses
from sdpo.report.runs import load_run
from sdpo.tracking.disk import atomic_write

_SCRIPTS = ("data", "list", "tokens", "show", "main")


def inspect_page(path: Path, on_step: Callable[[], None] = lambda: None) -> Path:
    """Write `<run folder>/inspect.html` and return it; `on_step` is called once per table read.

    Raises `UserError` if `path` is not a run folder, or has no table of rollouts.
    """
    run = load_run(path)
    steps, by_std = recorded_steps(run.path), normalizes_by_std(run.recipe)
    index = Index()

    def responses():
        for step in steps:
            yield from step_responses(run.path, step, by_std)
            on_step()

    blocks = list(packed(responses(), index))
    if not blocks:
        raise UserError(f"The tables of {run.path / 'rollouts'} have no rows: there is nothing to show.")
    facts = {
        "run": run.name,
        "algorithm": display(run.info.algorithm),
        "recipe": run.info.recipe,
        "seed": run.info.seed,
        "byStd": by_std,
    }
    pages = files("sdpo.report") / "pages" / "inspect"
    html = template("inspect/page.html.jinja").render(
        title=f"{run.name}: credit of every token",
        style=Markup((pages / "style.css").read_text()),
        script=Markup("\n".join((pages / f"{name}.js").read_text() for name in _SCRIPTS)),
        facts=Markup(embedded(facts)),
        index=Markup(index.json()),
        blocks=blocks,
    )
    page = run.path / "inspect.html"
    atomic_write(page, html.encode())
    return page
