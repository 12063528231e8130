"""Every message that the code raises for the user to act on can be found on the page of messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from sdpo.config.paths import PROJECT

PAGE = PROJECT / "docs" / "troubleshooting.md"
ERRORS = {"UserError", "EngineError", "NotFound", "NotImportable", "RayLost", "TooManyRestarts", "Damaged", "BadRow"}
# Where a ValueError becomes a line of "Recipe … is not valid".
CHECKS = ("config", "algorithms", "envs")
WORDS = 6  # of a message's first fixed words, by which it is looked up


def raised() -> Iterator[tuple[str, str]]:
    """(where, leading words) of every message."""
    for path in sorted((PROJECT / "sdpo").rglob("*.py")):
        place = path.relative_to(PROJECT)
        names = ERRORS | ({"ValueError"} if place.parts[1] in CHECKS else set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                if words := leading(text(node.args[0])):
                    yield f"{place}:{node.lineno}", words


def text(node: ast.expr) -> str:
    """What a string says, with a line break for everything that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value).replace("\n", " ")
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    return text(node.left) + text(node.right) if isinstance(node, ast.BinOp) else "\n"


def leading(message: str) -> str:
    """The first words of the first piece that has three; of shorter messages nothing can be looked up."""
    pieces = (plain(piece).split() for piece in message.split("\n"))
    return " ".join(next((piece for piece in pieces if len(piece) >= 3), [])[:WORDS])


def plain(words: str) -> str:
    """Letters, digits and option names; neither punctuation nor marks of Markdown."""
    return " ".join(re.findall(r"[\w.=]*\w", words))


@pytest.fixture(scope="module")
def page() -> str:
    return plain(PAGE.read_text())


def test_every_message_is_on_the_page(page):
    found = list(raised())
    assert len(found) > 200
    missing = [f"{where}: {words}" for where, words in found if words not in page]
    assert not missing, "not in docs/troubleshooting.md:\n" + "\n".join(missing)
