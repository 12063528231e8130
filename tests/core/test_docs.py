"""What the documents refer to is there."""

from __future__ import annotations

import re

import pytest

from sdpo.config.paths import PROJECT
from sdpo.config.registry import ALGORITHMS

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("docker/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(document):
    text = document.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (document.parent / target).exists(), target


def test_every_algorithm_has_its_section():
    titles = re.findall(r"^## (.+)$", (PROJECT / "docs" / "methods.md").read_text(), re.MULTILINE)
    assert {name.upper() for name in ALGORITHMS} <= set(titles)


def test_the_readme_names_existing_files():
    for name in re.findall(r"`((?:sdpo|recipes|docs|sandbox)/[\w/.-]+)`", (PROJECT / "README.md").read_text()):
        assert (PROJECT / name).exists(), name
