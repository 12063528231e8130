"""A world: nonsense words with secret meanings, problems to train on, and held-out compositions of the same words.

| problems | easy: one word | functional | medium: a word and a known word | hard: two words | and a condition |
|---|---|---|---|---|---|
| minicode, train 64 | 24 | 4 (easy) | 22 | 10 | 4 |
| minicode, held out 32 | – | – | 16 | 12 | 4 |
| minicode-texts, train 27 | 9 | – | 8 | 10 | – |
| minicode-texts, held out 12 | – | – | 4 | 8 | – |

`hard_world` is for searches of single problems: all 64 pairs of two words, to train on, and again with a condition,
held out.

Words of the library `kit` stand alone or beside a known word, never beside a second unknown: the feedback on an attempt
names the library's function only where that was what failed, so the other unknown would stay open.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from sdpo.envs.minicode.exercise import Exercise, Slot
from sdpo.envs.minicode.family import KNOWN_WORDS, LISTS, TEXTS, Family
from sdpo.envs.minicode.operations import AGGREGATE, KIT_ENDINGS, MAP, KitFunction
from sdpo.envs.words import WORLD, nonsense

LIBRARY = "library"

Pair = tuple[Slot, Slot]  # map, aggregate


@dataclass(frozen=True)
class _Counts:
    """How many compositions: unknown aggregate, unknown map, library (each beside a known word); two words, and these
    with a condition."""

    aggregate: int
    map: int
    library: int
    hard: int
    condition: int


@dataclass(frozen=True)
class _Plan:
    words: int  # of each kind, at most
    library_words: int
    functional: int  # problems of each kind
    train: _Counts
    held_out: _Counts


_PLANS = {
    LISTS.name: _Plan(8, 8, 2, _Counts(8, 7, 7, 10, 4), _Counts(6, 5, 5, 12, 4)),
    TEXTS.name: _Plan(8, 0, 0, _Counts(4, 4, 0, 10, 0), _Counts(2, 2, 0, 8, 0)),
}


@dataclass(frozen=True)
class World:
    """The problems of one seed, without tests."""

    name: str
    vocabulary: dict[str, tuple[Slot, ...]]  # AGGREGATE, MAP, LIBRARY → the words of the kind
    train: tuple[Exercise, ...]
    held_out: tuple[Exercise, ...]


def make_world(seed: int, family: Family = LISTS) -> World:
    """The same world for the same seed.  Every word of a held-out problem stands in training problems."""
    rng = random.Random(f"{family.name} world {seed}")
    plan = _PLANS[family.name]
    vocabulary = _vocabulary(family, plan, rng)
    compositions = _compositions(family, vocabulary, rng)
    train = [
        Exercise(*_place(slot, slot.meaning.slot), sentence=rng.randrange(3), family=family)
        for kind in (AGGREGATE, MAP, LIBRARY)
        for slot in vocabulary[kind]
    ]
    for kind in (AGGREGATE, MAP):
        chosen = rng.sample(vocabulary[kind], plan.functional)
        train += [Exercise(*_place(slot, kind), functional=True, family=family) for slot in chosen]
    train += _draw(family, compositions, plan.train, rng)
    held_out = _draw(family, compositions, plan.held_out, rng)
    return World(f"{family.name}-{seed}", vocabulary, tuple(train), tuple(held_out))


def hard_world(seed: int, family: Family = LISTS) -> World:
    """Every pair of two of the words that `make_world` has for this seed, alone and with a condition."""
    rng = random.Random(f"{family.name} world {seed}")
    vocabulary = _vocabulary(family, _PLANS[family.name], rng)
    pairs = list(itertools.product(vocabulary[MAP], vocabulary[AGGREGATE]))
    train = [Exercise(*pair, None, rng.randrange(3), family=family) for pair in pairs]
    held_out = [Exercise(*pair, _condition(rng), rng.randrange(3), family=family) for pair in pairs]
    return World(f"{family.name}-{seed}-hard", vocabulary, tuple(train), tuple(held_out))


def make_known_tasks(seed: int, count: int, family: Family = LISTS) -> list[Exercise]:
    """Problems of one or two known words and no unknown ones."""
    rng = random.Random(f"{family.name} known {seed}")
    tasks = []
    for index in range(count):
        the_map, aggregate = _known(family, MAP, rng), _known(family, AGGREGATE, rng)
        slots: tuple[Slot | None, Slot | None] = ((the_map, None), (None, aggregate), (the_map, aggregate))[index % 3]
        tasks.append(Exercise(*slots, sentence=rng.randrange(3), family=family))
    return tasks


def _place(slot: Slot, kind: str) -> tuple[Slot | None, Slot | None]:
    """A single word as an exercise's map or aggregate."""
    return (slot, None) if kind == MAP else (None, slot)


def library_slot(word: str, rng: random.Random) -> Slot:
    """A word of `kit` with a name and a formula drawn at random."""
    formula = rng.randint(2, 5), rng.randint(1, 9), rng.choice((17, 19, 23, 29))
    return Slot(word, KitFunction(word, rng.choice(KIT_ENDINGS), *formula), False)


def _vocabulary(family: Family, plan: _Plan, rng: random.Random) -> dict[str, tuple[Slot, ...]]:
    taken = set(KNOWN_WORDS)

    def word() -> str:
        taken.add(new := nonsense(rng, WORLD, taken))
        return new

    vocabulary = {}
    for kind in (AGGREGATE, MAP):
        operations = family.operations[kind]
        meanings = rng.sample(operations, min(plan.words, len(operations)))
        vocabulary[kind] = tuple(Slot(word(), meaning, False) for meaning in meanings)
    vocabulary[LIBRARY] = tuple(library_slot(word(), rng) for _ in range(plan.library_words))
    return vocabulary


def _known(family: Family, kind: str, rng: random.Random) -> Slot:
    meaning = rng.choice(family.operations[kind])
    return Slot(rng.choice(meaning.words), meaning, True)


def _compositions(family: Family, vocabulary: dict[str, tuple[Slot, ...]], rng: random.Random) -> list[list[Pair]]:
    """The pairs that `_Counts` counts, in its order, each at most once and in random order."""
    kinds = (
        [(_known(family, MAP, rng), slot) for slot in vocabulary[AGGREGATE] for _ in range(4)],
        [(slot, _known(family, AGGREGATE, rng)) for slot in vocabulary[MAP] for _ in range(4)],
        [(_known(family, MAP, rng), slot) for slot in vocabulary[LIBRARY] for _ in range(4)],
        list(itertools.product(vocabulary[MAP], vocabulary[AGGREGATE])),
    )
    result = []
    for pairs in kinds:
        rest = [pair for k, pair in enumerate(pairs) if pair not in pairs[:k]]
        rng.shuffle(rest)
        result.append(rest)
    return result


def _draw(family: Family, compositions: list[list[Pair]], counts: _Counts, rng: random.Random) -> list[Exercise]:
    """Take pairs out of `compositions`; what was taken for training cannot be held out any more."""
    medium = zip(compositions, (counts.aggregate, counts.map, counts.library), strict=False)
    pairs = [rest.pop() for rest, count in medium for _ in range(count)]
    tasks = [Exercise(*pair, None, rng.randrange(3), family=family) for pair in pairs]
    for index in range(counts.hard + counts.condition):
        condition = _condition(rng) if index >= counts.hard else None
        tasks.append(Exercise(*compositions[-1].pop(), condition, rng.randrange(3), family=family))
    return tasks


def _condition(rng: random.Random) -> tuple[str, int]:
    return rng.choice(("above", "below")), rng.randint(-3, 3)
