"""`sdpo compare`: the page that shows algorithms side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.tracking import WandbLogger
from sdpo.tracking.sink import line
from sdpo.tracking.wandb_logger import Place, is_installed

if TYPE_CHECKING:
    from sdpo.report.compare import Comparison

_LONGEST = 80  # characters of a page's folder


def run(options) -> int:
    from sdpo.report import choose, compare

    runs = Path(options.runs)
    logged = options.wandb or options.wandb_report
    if logged and not is_installed():
        raise UserError("--wandb needs the package wandb, which is not installed. Install it: pip install wandb.")
    if options.wandb_report:
        from sdpo.report import wandb_report

        wandb_report.check()
    chosen = choose(options.words, runs)
    out = Path(options.out) if options.out else runs / "compare" / _folder(options.words)
    first, *others = compare(chosen, out)
    for text in first.sentences:
        say(text)
    for other in others:
        say(f"Kept apart: {', '.join(other.apart.runs)} ({'; '.join(other.apart.differs)}). See {other.page}")
        for text in other.sentences:
            say(f"  {text}")
    say(f"Wrote {first.page}")
    if logged:
        _log([first, *others], out, options.wandb_report)
    return 0


def _log(comparisons: list[Comparison], out: Path, report: bool) -> None:
    """In the project and group of the runs; mode as for `tracking.wandb=auto`."""
    from sdpo.report import wandb_page

    run = comparisons[0].runs[0]
    logger = WandbLogger(
        out,
        project=run.recipe.get("tracking", {}).get("project", "sdpo"),
        group=run.info.recipe,
        name=f"compare {out.name}",
        tags=["compare"],
        config={"runs": [each.name for found in comparisons for each in found.runs]},
        job_type="compare",
        warn=say,
    )
    say(logger.description)
    wandb_page.log(comparisons, logger)
    try:
        if report:
            say(f"W&B report: {_report(comparisons, logger.place)}")
    finally:
        logger.finish()


def _report(comparisons: list[Comparison], place: Place | None) -> str:
    """Write it; returns its address."""
    from sdpo.report import wandb_report

    if place is None:
        raise UserError("No report was written, because W&B's server did not answer. The same command tries again.")
    try:
        return wandb_report.compose(comparisons, place).save().url
    except Exception as error:  # W&B's client, its server and the network each have error families
        raise UserError(
            f"The report could not be written to W&B ({line(error)}); page and run are there. The same command tries "
            "again."
        ) from error


def _folder(words: list[str]) -> str:
    """The recipe's name; of several words, their names together."""
    names = [re.sub(r"[^\w.=@,~-]+", "_", word.partition(":")[0].strip("/").rpartition("/")[2]) for word in words]
    return "+".join(names)[:_LONGEST].lstrip(".-") or "runs"
