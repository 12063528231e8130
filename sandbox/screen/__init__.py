"""Can one run of this program influence the next one in the same process?

Every test counts as if it ran in a fresh process.  A fresh process for each costs a fork; a program that neither keeps
nor sees anything beyond its run can have its tests one after the other in one process instead.  `isolated` proves that
from the syntax.  It accepts a small, first-order part of Python and refuses all else: False only costs time.

Each expression has a kind.  *Data* are numbers, texts and the containers of `allowed`: made by the run or immutable,
with a text, an order and a hash that depend on nothing but their content.  Everything else (functions, classes,
modules, iterators, streams, exceptions, objects of the program's classes) stands only where the syntax uses it at once:
it is called, iterated over, handed to a function that takes it in that place, or an attribute of it is taken.  A name
has one kind wherever it is bound.  So no container, parameter or result ever holds a lasting object, nothing but data
reaches the library, and the library calls nothing of the program's but functions, with data.  docs/sandbox.md has the
whole argument, `allowed` the names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from .scopes import Refused
from .statements import Statements

__all__ = ["isolated", "may_hold_floats", "why_not"]

_TEXT, _FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(r"[0-9][.eE]|[NI]")


def isolated(
    tree: ast.Module, prelude: Mapping[str, object], own: Mapping[str, str] | None = None, floats: bool = False
) -> bool:
    """Whether runs of this program in one process can neither influence each other nor tell which one they are.

    own: sources of the program's own modules, loaded afresh for every run, and judged as parts of it.
    floats: whether the tests may hand floats to it.
    """
    try:
        return why_not(tree, prelude, own, floats) is None
    except Exception:  # own modules with errors, programs nested too deeply
        return False


def why_not(
    tree: ast.Module, prelude: Mapping[str, object], own: Mapping[str, str] | None = None, floats: bool = False
) -> str | None:
    """The first thing that is not accepted; None: there is none."""
    try:
        screen = Statements(tree, prelude, own or {}, floats)
        screen.check()
        if screen.saw_floats and screen.saw_sets and not floats:
            Statements(tree, prelude, own or {}, True).check()
    except Refused as refusal:
        return str(refusal)
    return None


def may_hold_floats(arguments: str) -> bool:
    """Whether the JSON of a test may hold a float, NaN and Infinity included."""
    return _FLOAT.search(_TEXT.sub("", arguments)) is not None
