"""The metrics that docs/metrics.md describes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sdpo.config.paths import PROJECT


@cache
def described() -> tuple[str, ...]:
    """The names in the first column of its tables; `<…>` stands for one word."""
    return tuple(re.findall(r"^\| `([^`]+)` \|", (PROJECT / "docs" / "metrics.md").read_text(), re.MULTILINE))


@cache
def _pattern() -> re.Pattern[str]:
    """Where a name has `<…>`, there may be a word without a slash."""
    return re.compile("|".join(re.sub(r"<\w+>", "[^/]+", re.escape(name)) for name in described()))


def undescribed(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of rows of metrics that the page does not know."""
    return {key for row in rows for key in row if not _pattern().fullmatch(key)}
