"""A few rows in the formats in which data sets are published, written for this project.

They serve smoke tests and examples, as `data.source: sdpo.envs.samples:math`; there are too few to train on.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

Row = dict[str, Any]


def math() -> list[Row]:
    """As GSM8K, MATH and DAPO have them."""
    return _rows("math")


def choice() -> list[Row]:
    """As SciKnowEval has them."""
    return _rows("choice")


def tools() -> list[Row]:
    """As ToolAlpaca has them in arXiv 2601.20802's form."""
    return _rows("tools")


def _rows(name: str) -> list[Row]:
    text = resources.files(__package__).joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
