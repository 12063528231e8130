"""Families of problems: what a program reads, what words can mean, and how statements are phrased.

`LISTS` is minicode; `TEXTS` is a second skill in the same style, for the question what a policy forgets when it learns
something new.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdpo.envs.minicode.operations import LIST_OPERATIONS, TEXT_OPERATIONS, Operation


@dataclass(frozen=True)
class Family:
    """One skill.  `sentences` by shape; {v} is the word of the map, {w} that of the aggregate."""

    name: str
    variable: str
    read: str  # the program's first line
    show: str  # the statement that prints the variable
    operations: Mapping[str, tuple[Operation, ...]]
    sentences: Mapping[str, tuple[str, ...]]
    draw: Callable[[random.Random, bool], Any]  # (rng, whether a condition will thin it out) → an input value
    text: Callable[[Any], str]  # a value as the program reads and prints it

    @property
    def known_words(self) -> frozenset[str]:
        return frozenset(word for kind in self.operations.values() for op in kind for word in op.words)


def _draw_list(rng: random.Random, thinned: bool) -> list[int]:
    size = rng.randint(4, 6) + (2 if thinned else 0)
    values = [rng.randint(-9, 9) for _ in range(size)]
    if rng.random() < 0.3:  # repeated values, or "distinct" could not be told from "count"
        values[rng.randrange(size)] = values[rng.randrange(size)]
    return values


def _draw_text(rng: random.Random, thinned: bool) -> str:
    return " ".join(rng.choice("abcdefghkmnprstuvwxyzABCDEFGHKMNPRSTUVWXYZ") for _ in range(rng.randint(3, 5)))


LISTS = Family(
    name="minicode",
    variable="x",
    read="x = list(map(int, input().split()))",
    show="print(*x)",
    operations=LIST_OPERATIONS,
    sentences={
        "aggregate": ("Print the {w} of the values.", "Read integers. Output their {w}.", "Show the {w} of these."),
        "map": ("Print the {v} values.", "Read integers. Output the {v} ones.", "Show the {v} list."),
        "both": (
            "Print the {v} values, then their {w}.",
            "Read integers. Output the {v} ones and their {w}.",
            "Show the {v} list and the {w} of these.",
        ),
        "functional aggregate": ("Return the {w} of x.",),
        "functional map": ("Return the {v} values of x.",),
    },
    draw=_draw_list,
    text=lambda values: " ".join(map(str, values)),
)

TEXTS = Family(
    name="minicode-texts",
    variable="s",
    read="s = input()",
    show="print(s)",
    operations=TEXT_OPERATIONS,
    sentences={
        "aggregate": ("Print the {w} of the text.",),
        "map": ("Print the {v} text.",),
        "both": ("Print the {v} text, then its {w}.",),
    },
    draw=_draw_text,
    text=str,
)

FAMILIES = {family.name: family for family in (LISTS, TEXTS)}
KNOWN_WORDS = LISTS.known_words | TEXTS.known_words
