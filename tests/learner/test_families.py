"""Every family of docs/families.md: log-probs and gradients are plain transformers', and the page says how."""

from __future__ import annotations

import re

import pytest

from tests.learner.families import BEGIN, END, FAMILIES, HEAD, PAGE, row

QUICK = ["qwen3", "gemma2", "phi", "qwen3_next"]
NUMBER = re.compile(r"\d+e-?\d+")


def page_lines() -> dict[str, str]:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert table.startswith(HEAD)
    return {line.split("`")[1]: line for line in table.removeprefix(HEAD).splitlines()}


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in FAMILIES])
def test_a_family_is_computed_as_by_transformers_and_as_the_page_says(kind):
    line, difference = row(kind)
    assert difference <= 1e-4
    assert NUMBER.sub("#", page_lines()[kind]) == NUMBER.sub("#", line), "python -m tests.learner.families"


def test_the_page_has_every_family_and_no_difference_above_what_is_allowed():
    lines = page_lines()
    assert list(lines) == list(FAMILIES)
    assert all(float(number) <= 1e-4 for line in lines.values() for number in NUMBER.findall(line))
