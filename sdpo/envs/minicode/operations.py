"""What a word can mean: an operation on a list of integers or on a text, as a piece of Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

AGGREGATE = "aggregate"  # list → integer; text → piece of it or number
MAP = "map"  # list → list; text → text


@dataclass(frozen=True)
class Operation:
    """One meaning.  `expression` is Python over the family's variable; `words` are English and always mean it."""

    name: str
    slot: str  # AGGREGATE | MAP
    expression: str
    words: tuple[str, ...]
    apply: Callable[[Any], Any] = field(compare=False, repr=False)


def _operations(variable: str, slot: str, rows: str) -> tuple[Operation, ...]:
    """One operation a line: name | expression | words."""
    result = []
    for row in rows.strip().splitlines():
        name, expression, words = (part.strip() for part in row.split(" | "))
        meaning = eval(f"lambda {variable}: {expression}")
        result.append(Operation(name, slot, expression, tuple(words.split()), meaning))
    return tuple(result)


# Further positions (second, last but one) are left out: a policy of this size tells the first value from the last, but
# was seen to confuse four positions with each other.
LIST_OPERATIONS = {
    AGGREGATE: _operations(
        "x",
        AGGREGATE,
        """
        max | max(x) | maximum largest biggest
        min | min(x) | minimum smallest lowest
        sum | sum(x) | sum total
        len | len(x) | count length number
        first | x[0] | first initial head
        last | x[-1] | last final end
        range | max(x)-min(x) | range spread span
        distinct | len(set(x)) | distinct variety
        """,
    ),
    MAP: _operations(
        "x",
        MAP,
        """
        double | [2*v for v in x] | doubled twofold
        square | [v*v for v in x] | squared
        negate | [-v for v in x] | negated opposite
        increment | [v+1 for v in x] | incremented raised
        even | [v for v in x if v%2==0] | even
        odd | [v for v in x if v%2] | odd
        sort | sorted(x) | sorted ordered ascending
        reverse | x[::-1] | reversed backward mirrored
        absolute | [abs(v) for v in x] | absolute unsigned
        tail | x[1:] | remaining rest
        """,
    ),
}

TEXT_OPERATIONS = {
    AGGREGATE: _operations(
        "s",
        AGGREGATE,
        """
        initial | s[0] | start opening
        final | s[-1] | finish closing
        size | len(s) | size extent
        middle | s[len(s)//2] | middle centre
        """,
    ),
    MAP: _operations(
        "s",
        MAP,
        """
        upper | s.upper() | uppercase loud
        lower | s.lower() | lowercase quiet
        swap | s.swapcase() | swapped
        flip | s[::-1] | flipped turned
        dash | s.replace(" ","-") | dashed
        """,
    ),
}

# A library function of the module `kit` carries the statement's word plus one of these endings.  They are two letters
# long, because Python offers "Did you mean" only for names that are close enough to the one that was tried.
KIT_ENDINGS = ("Of", "By", "In", "To", "Up", "It", "At", "On")


@dataclass(frozen=True)
class KitFunction:
    """A function of the module `kit`: only its name has to be found out, its formula is nothing one would guess."""

    word: str
    ending: str
    scale: int
    shift: int
    modulus: int

    slot = AGGREGATE

    @property
    def name(self) -> str:
        return self.word + self.ending

    @property
    def expression(self) -> str:
        return f"kit.{self.name}(x)"

    @property
    def source(self) -> str:
        return f"def {self.name}(x):\n    return ({self.scale} * sum(x) + {self.shift}) % {self.modulus}\n"

    def apply(self, x: list[int]) -> int:
        return (self.scale * sum(x) + self.shift) % self.modulus
