"""A task: words with their meanings, put into a sentence, with the program that solves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sdpo.envs.minicode.family import LISTS, Family
from sdpo.envs.minicode.operations import KitFunction, Operation

STARTER = "class Solution:\n    def solve(self, x):"
CONDITIONS = {"above": ">", "below": "<"}


@dataclass(frozen=True)
class Slot:
    """A word of the statement and what it means; `known` where the word is English."""

    word: str
    meaning: Operation | KitFunction
    known: bool

    @property
    def quoted(self) -> str:
        return f"`kit.{self.word}`" if isinstance(self.meaning, KitFunction) else f"`{self.word}`"


@dataclass(frozen=True)
class Exercise:
    """One problem without its tests: at least one of `map` and `aggregate` is set."""

    map: Slot | None = None
    aggregate: Slot | None = None
    condition: tuple[str, int] | None = None  # ("above" | "below", threshold)
    sentence: int = 0
    functional: bool = False
    family: Family = field(default=LISTS, compare=False, repr=False)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(s for s in (self.map, self.aggregate) if s is not None)

    @property
    def unknown(self) -> int:
        """Number of words whose meaning has to be found out."""
        return sum(not s.known for s in self.slots)

    @property
    def kit(self) -> KitFunction | None:
        meaning = self.aggregate.meaning if self.aggregate else None
        return meaning if isinstance(meaning, KitFunction) else None

    @property
    def difficulty(self) -> Literal["easy", "medium", "hard"]:
        """easy: one word; medium: a word and a known word; hard: two unknown words, with or without a condition."""
        if len(self.slots) == 1:
            return "easy"
        return "hard" if self.unknown == 2 else "medium"

    @property
    def kind(self) -> str:
        """Which unknowns there are: known, aggregate, map, library, two unknowns, with a condition, functional."""
        if self.unknown == 0:
            return "known words"
        if self.unknown == 2:
            return "two unknowns, condition" if self.condition else "two unknowns"
        unknown = next(s for s in self.slots if not s.known)
        return "library name" if isinstance(unknown.meaning, KitFunction) else unknown.meaning.slot

    @property
    def statement(self) -> str:
        shape = "both" if len(self.slots) == 2 else self.slots[0].meaning.slot
        sentences = self.family.sentences[f"functional {shape}" if self.functional else shape]
        text = sentences[self.sentence % len(sentences)].format(
            v=self.map.quoted if self.map else "", w=self.aggregate.quoted if self.aggregate else ""
        )
        return f"Keep values {self.condition[0]} {self.condition[1]}. {text}" if self.condition else text

    @property
    def starter_code(self) -> str:
        return STARTER if self.functional else ""

    @property
    def files(self) -> dict[str, str]:
        return {"kit.py": self.kit.source} if self.kit else {}

    @property
    def program(self) -> str:
        """The reference program, in the one style that the bundled policy writes."""
        if self.functional:
            return f"{STARTER}\n        return {self.slots[0].meaning.expression}"
        lines = ["import kit"] if self.kit else []
        lines.append(self.family.read)
        if self.condition:
            lines.append(f"x = [v for v in x if v {CONDITIONS[self.condition[0]]} {self.condition[1]}]")
        if self.map:
            lines += [f"{self.family.variable} = {self.map.meaning.expression}", self.family.show]
        if self.aggregate:
            lines.append(f"print({self.aggregate.meaning.expression})")
        return "\n".join(lines)

    def keep(self, values: Any) -> Any:
        """The values that the condition lets through; without one, all that was read."""
        if self.condition is None:
            return values
        side, threshold = self.condition
        return [v for v in values if (v > threshold if side == "above" else v < threshold)]
