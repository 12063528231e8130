"""`sdpo compare`: the page that shows algorithms side by side."""

from __future__ import annotations

import re
from pathlib import Path

from sdpo.config.terminal import say

_LONGEST = 80  # characters of a page's folder


def run(options) -> int:
    from sdpo.report import choose, compare

    runs = Path(options.runs)
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
    return 0


def _folder(words: list[str]) -> str:
    """The recipe's name; of several words, their names together."""
    names = [re.sub(r"[^\w.=@,~-]+", "_", word.partition(":")[0].strip("/").rpartition("/")[2]) for word in words]
    return "+".join(names)[:_LONGEST].lstrip(".-") or "runs"
