"""What the documents refer to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from sdpo.config.paths import PROJECT
from sdpo.config.registry import ALGORITHMS
from tests.helpers.browser import MISSING, chromium, find_chromium

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("docker/*.md")])


_FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """Without blocks of code."""
    return _FENCED.sub("", document.read_text())


@cache
def anchors(document: Path) -> set[str]:
    """What GitHub and the site call the headings of a page (they differ on the second of two equal ones)."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} (.+?) *#*$", prose(document), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)  # of a link the text
        found.add(re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(document):
    text = prose(document)
    assert "@@" not in text
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", text):
        if target.startswith(("http", "mailto:")):
            continue
        file = document.parent / target if target else document
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.resolve()), f"{target}#{anchor}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_and_asks_nobody_for_anything(site):
    pages = {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.html")}
    assert {"index.html", "options.html", "metrics.html", "docker.html"} <= set(pages)
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=[\"']?(https?:[^\"'\s>]+)", page)
        loaded += re.findall(
            r"<link[^>]* rel=[\"']?(?:stylesheet|preconnect|preload)[^>]* href=[\"']?(https?:[^\"'\s>]+)", page
        )
        assert not loaded, (name, loaded)


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason=MISSING)
def test_the_site_is_searched_from_the_disk(site):
    with chromium(find_chromium()) as page:
        page.open(site / "index.html")
        page.point(".md-search__input", click=True)
        for letter in "learner.zero_stage":
            page.key(letter)
        hit = "document.querySelector('.md-search-result__link[href*=\"options.html\"]')"
        page.wait(f"{hit} !== null")
        page.evaluate(f"{hit}.click()")
        page.wait("location.pathname.endsWith('/options.html') && document.readyState === 'complete'")
        assert page.errors == []


def test_every_algorithm_has_its_section():
    titles = re.findall(r"^## (.+)$", (PROJECT / "docs" / "methods.md").read_text(), re.MULTILINE)
    assert {name.upper() for name in ALGORITHMS} <= set(titles)


def test_the_readme_names_existing_files():
    for name in re.findall(r"`((?:sdpo|recipes|docs|sandbox)/[\w/.-]+)`", (PROJECT / "README.md").read_text()):
        assert (PROJECT / name).exists(), name
