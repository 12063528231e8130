"""`sdpo compare`: the page that shows algorithms side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.tracking import WandbLogger
from sdpo.tracking.wandb_logger import is_installed

if TYPE_CHECKING:
    from sdpo.report.compare import Comparison

_LONGEST = 80  # characters of a page's folder


def run(options) -> int:
    from sdpo.report import choose, compare

    runs = Path(options.runs)
    if options.wandb and not is_installed():
        raise UserError("--wandb needs the package wandb, which is not installed. Install it: pip install wandb.")
    chosen = choose(options.words, runs)
    out = Path(options.out) if options.out else runs / "compare" / _folder(options.words)
    first, *others = compare(chosen, out)
    for text in first.sentences:
        say(text)
    for other in others:
        say(f"Kept apart: {', '.join(other.apart.runs)} ({'; '.join(other.apart.differs)}). See {other.page}")
        for text in other.sentences:
            say(f"  {text}")
    if options.wandb:
        _log(first, others, out)
    say(f"Wrote {first.page}")
    return 0


def _log(first: Comparison, others: list[Comparison], out: Path) -> None:
    """In the project and group of the runs; mode as for `tracking.wandb=auto`."""
    from sdpo.report import wandb_page

    run = first.runs[0]
    logger = WandbLogger(
        out,
        project=run.recipe.get("tracking", {}).get("project", "sdpo"),
        group=run.info.recipe,
        name=f"compare {out.name}",
        tags=["compare"],
        config={"runs": [each.name for found in (first, *others) for each in found.runs]},
        job_type="compare",
        warn=say,
    )
    say(logger.description)
    wandb_page.log([first, *others], logger)
    logger.finish()


def _folder(words: list[str]) -> str:
    """The recipe's name; of several words, their names together."""
    names = [re.sub(r"[^\w.=@,~-]+", "_", word.partition(":")[0].strip("/").rpartition("/")[2]) for word in words]
    return "+".join(names)[:_LONGEST].lstrip(".-") or "runs"
