"""`sdpo compare`: the page that shows algorithms side by side."""

from __future__ import annotations

from pathlib import Path


def run(options) -> int:
    from sdpo.report import compare, find_runs

    runs = Path(options.runs)
    out = Path(options.out) if options.out else runs / "compare" / options.recipe
    page = compare(find_runs(runs, options.recipe), out)
    print(f"Wrote {page}")
    return 0
