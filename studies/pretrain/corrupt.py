"""Programs that went wrong in the ways in which a small policy's programs go wrong.

Without them in the corpus, a teacher that meets its first SyntaxError copies fragments of the prompt into the answer,
and a mass-covering divergence teaches exactly that.
"""

from __future__ import annotations

import random
import re

_PIECE = re.compile(r"\n *| ?[A-Za-z]+| ?\d+| ?[^\sA-Za-z0-9]+| ")
_NOISE = re.findall(
    _PIECE,
    "x v kit print( sum max len( [ ] ( ) )) : * for v in x if = list( map( int, input() split() .split()) -1 0 1 2"
    " sorted reversed min set( abs( % == \n return import the values their ` Print",
)


def _edit(pieces: list[str], rng: random.Random, words: list[str]) -> list[str]:
    pieces = list(pieces)
    at = rng.randrange(len(pieces))
    match rng.randrange(7):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[at])
        case 2:
            other = min(at + 1, len(pieces) - 1)
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3 | 4:
            pieces[at] = rng.choice(_NOISE + words)
        case 5:
            pieces.insert(at, rng.choice(_NOISE + words))
        case _:
            del pieces[at : at + rng.randint(1, 6)]
    return pieces or ["x"]


def corrupted(program: str, words: list[str], rng: random.Random) -> str | None:
    """A damaged copy of `program`; None stands for a response without a code block.

    `words` are the statement's words: a policy that is lost copies them into its program.
    """
    draw = rng.random()
    if draw < 0.03:
        return None
    if draw < 0.06:
        return "while True:\n    pass"
    pieces = _PIECE.findall(program)
    if draw < 0.18 and words:  # the word itself taken for a function or a method
        word = rng.choice(words)
        call = rng.choice((f"print({word}(x))", f"print(x.{word})", f"print({word})"))
        return re.sub(r"print\(\*?.*\)$", call, program)
    if draw < 0.3:  # garbled beginning
        cut = rng.randint(1, min(8, len(pieces) - 1))
        pieces = rng.choices(_NOISE + words, k=rng.randint(1, cut)) + pieces[cut:]
    elif draw < 0.42:  # cut off
        pieces = pieces[: rng.randint(1, len(pieces) - 1)]
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            pieces = _edit(pieces, rng, words)
    return "".join(pieces)
