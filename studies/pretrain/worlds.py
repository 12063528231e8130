"""The worlds for which a policy is bundled: what each one's corpus is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from studies.pretrain import code_corpus, tools_corpus
from studies.pretrain.example import Example


@dataclass(frozen=True)
class Corpus:
    """modes: what an example may be, with its share.  phrases: what is one token each."""

    modes: dict[str, float]
    phrases: tuple[str, ...]
    random_example: Callable[[random.Random], Example]

    def examples(self, seed: int, count: int) -> Iterator[Example]:
        """`count` examples, the same for the same seed."""
        rng = random.Random(seed)
        return (self.random_example(rng) for _ in range(count))


CORPORA = {
    "minicode": Corpus(code_corpus.MODES, code_corpus.PHRASES, code_corpus.random_example),
    "minitools": Corpus(tools_corpus.MODES, tools_corpus.PHRASES, tools_corpus.random_example),
}
