"""One colour per outcome, on the console and on every page: what was solved is green, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """`css` for pages, `terminal` for rich."""

    css: str
    terminal: str


_SOLVED = Colour("#009E73", "green")
_ANSWERED = Colour("#E69F00", "yellow")  # an answer, and a wrong one
_FAILED = Colour("#D55E00", "red")  # it broke
_STOPPED = Colour("#CC79A7", "magenta")  # a limit was reached
_UNREAD = Colour("#0072B2", "blue")  # nothing that could be graded

# In the order in which they are shown; shades tell those of one kind apart.
OUTCOMES = {
    "accepted": _SOLVED,
    "right": _SOLVED,
    "solved": _SOLVED,
    "wrong answer": _ANSWERED,
    "wrong": _ANSWERED,
    "wrong option": _ANSWERED,
    "wrong state": _ANSWERED,
    "partly": Colour("#F0D878", "yellow"),
    "runtime error": _FAILED,
    "error": _FAILED,
    "compile error": Colour("#8F3F00", "red"),
    "time limit": _STOPPED,
    "memory limit": Colour("#8A4A70", "magenta"),
    "output limit": Colour("#E8BCD3", "magenta"),
    "no code": _UNREAD,
    "no answer": _UNREAD,
    "no option": Colour("#56B4E9", "blue"),
    "unreadable": Colour("#56B4E9", "blue"),
    "unfinished": Colour("#003F66", "blue"),
}
_OTHERS = [Colour(css, "white") for css in ("#999999", "#666666", "#BBBBBB", "#444444", "#7A6A9B", "#B9A7D6")]


def colours(labels: Iterable[str]) -> dict[str, Colour]:
    """The labels in the order in which they are shown, with their colours; those of one's own get greys and violets."""
    given = [label.replace("_", " ") for label in labels]
    own = sorted(set(given) - OUTCOMES.keys())
    known = {label: colour for label, colour in OUTCOMES.items() if label in given}
    return known | {label: _OTHERS[i % len(_OTHERS)] for i, label in enumerate(own)}
