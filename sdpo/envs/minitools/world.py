"""A world: verbs and nouns with secret meanings, requests to train on, and held-out compositions of the same words.

Twelve verbs stand for twelve tools, twelve nouns for twelve names of arguments.

| requests | easy: one word | hard: a verb and a noun | two steps |
|---|---|---|---|
| train | 24 | 40 | 16 |
| held out | – | 32 | 8 |

A request names six tools and four arguments; of those that a word may stand for, one is right.  Where one word is all
that has to be found out, the other is the service's own name.  Two steps need two turns; the second one passes on what
the first one gave.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdpo.envs.minitools.service import Request, Step
from sdpo.envs.words import WORLD, nonsense

WORDS = 12  # of each kind
TOOLS, ARGUMENTS = 6, 4  # that a request names
LARGEST = 30  # value of an argument


@dataclass(frozen=True)
class World:
    """verbs: what each stands for, by word; nouns likewise."""

    name: str
    verbs: dict[str, str]
    nouns: dict[str, str]
    train: tuple[Request, ...]
    held_out: tuple[Request, ...]
    train_two_steps: tuple[Request, ...]
    held_out_two_steps: tuple[Request, ...]


def make_world(seed: int) -> World:
    """The same world for the same seed.  Every word of a held-out request stands in requests to train on."""
    rng = random.Random(f"minitools world {seed}")
    verbs, nouns = vocabulary(rng, WORLD, WORDS)
    words = Words(verbs, nouns)
    easy = [words.request(rng, [(verb, None)]) for verb in verbs] + [words.request(rng, [(None, n)]) for n in nouns]
    pairs = list(itertools.product(verbs, nouns))
    rng.shuffle(pairs)
    train, held_out = pairs[:40], pairs[40:72]
    chains = [rng.sample(some, 2) for some, count in ((train, 16), (held_out, 8)) for _ in range(count)]
    return World(
        f"minitools-{seed}",
        verbs,
        nouns,
        (*easy, *(words.request(rng, [pair]) for pair in train)),
        tuple(words.request(rng, [pair]) for pair in held_out),
        tuple(words.request(rng, chain) for chain in chains[:16]),
        tuple(words.request(rng, chain) for chain in chains[16:]),
    )


def vocabulary(rng: random.Random, half: str, count: int) -> tuple[dict[str, str], dict[str, str]]:
    """(verbs, nouns): `count` new words of each kind and the new names that they stand for."""
    taken: set[str] = set()

    def word() -> str:
        taken.add(new := nonsense(rng, half, taken))
        return new

    return {word(): word() for _ in range(count)}, {word(): word() for _ in range(count)}


@dataclass(frozen=True)
class Words:
    """A vocabulary, from which requests are made."""

    verbs: dict[str, str]
    nouns: dict[str, str]

    def request(self, rng: random.Random, asked: Sequence[tuple[str | None, str | None]]) -> Request:
        """A step for each (verb, noun); None: the service's own name stands there."""
        steps = [self._step(rng, verb, noun, first=not i) for i, (verb, noun) in enumerate(asked)]
        tools = _listed(rng, {s.tool for s in steps}, self.verbs.values(), TOOLS)
        arguments = _listed(rng, {s.argument for s in steps}, self.nouns.values(), ARGUMENTS)
        return Request(tuple(steps), tools, arguments)

    def _step(self, rng: random.Random, verb: str | None, noun: str | None, first: bool) -> Step:
        tool = self.verbs[verb] if verb else rng.choice(list(self.verbs.values()))
        argument = self.nouns[noun] if noun else rng.choice(list(self.nouns.values()))
        return Step(verb or tool, noun or argument, tool, argument, rng.randint(1, LARGEST) if first else None)


def _listed(rng: random.Random, wanted: set[str], all_names: Iterable[str], count: int) -> tuple[str, ...]:
    names = [*sorted(wanted), *rng.sample([n for n in all_names if n not in wanted], count - len(wanted))]
    rng.shuffle(names)
    return tuple(names)
