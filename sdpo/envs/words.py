"""Nonsense words: the unknowns of the bundled worlds.

Words come in two disjoint parts of one space, decided by a hash of the word: `PRETRAINING` words are the only ones that
the corpora of the bundled policies use, `WORLD` words the only ones that a world uses.  A word of a world is therefore
fresh for a policy by construction, whatever the seeds.
"""

from __future__ import annotations

import random
import zlib

_ONSETS = "b bl br d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sk sl sn sp st t tr v w y z".split()
_VOWELS = "a e i o u".split()
_CODAS = "b d f g k l m n p r s t x z ck lt mp nd nk rd rk rm rp sh sk st th".split()

PRETRAINING = "pretraining"
WORLD = "world"


def half_of(word: str) -> str:
    """`WORLD` for one word in eight, `PRETRAINING` for the others."""
    return WORLD if zlib.crc32(word.encode()) % 8 == 0 else PRETRAINING


def nonsense(rng: random.Random, half: str, taken: frozenset[str] | set[str] = frozenset()) -> str:
    """A pronounceable word of 4 to 8 letters from the given half that is not in `taken`."""
    while True:
        word = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        if rng.random() < 0.5:
            word += rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.3 else "")
        if 4 <= len(word) <= 8 and half_of(word) == half and word not in taken:
            return word
