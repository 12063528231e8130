"""Whether two answers are equal, by `math-verify`.  Runs in workers, whose time limit stands in for its own."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from sdpo.envs.boxed import MAX_ANSWER, last_boxed

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the time limit that is not its own here


def judge(right: str, response: str, boxed: bool = True) -> dict[str, str]:
    """The verdict (label: right, wrong answer, no answer, unreadable) and the answer as the response gives it."""
    given = last_boxed(response) if boxed else response[-MAX_ANSWER:]
    if given is None:
        return {"label": "no answer"}
    if not given or len(given) > MAX_ANSWER:
        return {"label": "unreadable", "given": given[:MAX_ANSWER]}
    if boxed and _squeezed(given) == _squeezed(right):
        return {"label": "right", "given": given}
    found = _parse(f"\\boxed{{{given}}}" if boxed else given)
    if not found:
        return {"label": "unreadable" if boxed else "no answer", "given": given}
    equal = verify(list(_gold(right)), found, timeout_seconds=None)
    return {"label": "right" if equal else "wrong answer", "given": given if boxed else str(found[-1])}


@lru_cache(maxsize=4096)
def _gold(right: str) -> tuple[Any, ...]:
    bare = right.strip().removeprefix("$").removesuffix("$") if right.count("$") == 2 else right
    return tuple(_parse(f"\\boxed{{{bare}}}") or _parse(right))


def _parse(text: str) -> list[Any]:
    found: list[Any] = parse(text, parsing_timeout=None)
    return found


def _squeezed(text: str) -> str:
    return re.sub(r"\s+|\\left|\\right|\\[,!;]|(?<=\d),(?=\d{3}\b)", "", text).strip("$.")


# What the libraries import and build at their first uses, the forked workers share: parsers, and for each kind of
# answer what tells it from the others.
_KINDS = ("29", r"\frac{1}{2}", r"\sqrt{3}", r"(3, \infty)", r"\{1, 2\}", "x^2 + 1", "x = 3", "1 < x", "-7, 7", r"\pi")
for _one in _KINDS:
    for _other in _KINDS:
        judge(_one, f"\\boxed{{{_other}}}")
