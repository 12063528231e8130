"""LiveCodeBench's prelude: what a program may use without importing it (testing_util.py, commit 28fef95)."""

from __future__ import annotations

import builtins
import copy
import os
from collections.abc import Callable

_STAR = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json "
    "builtins typing"
).split()
_PLAIN = _STAR[: _STAR.index("json") + 1]

PRELUDE = "\n".join([f"from {name} import *" for name in _STAR] + [f"import {name}" for name in _PLAIN])
RECURSION_LIMIT = 50_000
MAX_INT_DIGITS = 50_000
_PYTHONS_OWN = frozenset(vars(builtins))  # before the prelude


def install_prelude() -> dict[str, object]:
    """Bind the prelude's names beneath those of every program: among the builtins.

    That is what "in front of the program" amounts to, without touching some nine hundred objects for every run, which
    would copy their memory pages in every child.  Returns the names.
    """
    namespace: dict[str, object] = {"__name__": "__prelude__"}
    exec(compile(PRELUDE, "<prelude>", "exec"), namespace)
    names = {name: value for name, value in namespace.items() if not name.startswith("__")}
    vars(builtins).update(names)
    copy.deepcopy.__defaults__ = (None, object())  # a marker, a list by default, which it hands to the caller's `memo`
    return names


def take_over_seeding() -> Callable[[], None]:
    """What seeds `random` anew after a fork, for each child to call; without this, `random` does so in its own way.

    That runs before everything else in a child, through a class and a base class, and copies forty pages.
    """
    register, os.register_at_fork = os.register_at_fork, lambda **hooks: None
    try:
        import random
    finally:
        os.register_at_fork = register
    return super(random.Random, random._inst).seed


def remove_prelude(names: dict[str, object]) -> None:
    """Take them away again, in a child whose program is judged by a harness that has no prelude."""
    mine = vars(builtins)
    for name in names:
        if name not in _PYTHONS_OWN and name not in ("exit", "quit"):
            mine.pop(name, None)
