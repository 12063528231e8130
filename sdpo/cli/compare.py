"""`sdpo compare`: the page that shows algorithms side by side."""

from __future__ import annotations

from pathlib import Path

from sdpo.config.names import check_file_name
from sdpo.config.terminal import say
from sdpo.errors import UserError


def run(options) -> int:
    from sdpo.report import compare, find_runs

    try:
        check_file_name("recipe", options.recipe)
    except ValueError as error:
        raise UserError(str(error)) from None
    runs = Path(options.runs)
    out = Path(options.out) if options.out else runs / "compare" / options.recipe
    page = compare(find_runs(runs, options.recipe), out)
    say(f"Wrote {page}")
    return 0
