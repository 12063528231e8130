"""Repetition and copying, counted in 4-grams of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

N = 4
# Odd numbers of 64 random bits: two different 4-grams have the same sum with a probability of some 2⁻⁶⁰.
_FACTORS = np.random.default_rng(4).integers(2**63, size=N, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def repeated(ids: Sequence[int]) -> float:
    """The share of 4-grams that occurred in the same text before (seq-rep-4, arXiv 1908.04319); 0 without any."""
    found = _ngrams(ids)
    return 1 - len(np.unique(found)) / len(found) if len(found) else 0.0


def copied(ids: Sequence[int], source: Sequence[int]) -> float:
    """The share of 4-grams that occur in `source`; 0 without any."""
    found = _ngrams(ids)
    return float(np.isin(found, _ngrams(source)).mean()) if len(found) else 0.0


def _ngrams(ids: Sequence[int]) -> np.ndarray:
    """A number for each 4-gram, uint64 [len(ids) − 3]."""
    tokens = np.asarray(ids, np.uint64)
    count = max(0, len(tokens) - N + 1)
    return sum((tokens[i : i + count] * _FACTORS[i] for i in range(N)), np.zeros(count, np.uint64))
