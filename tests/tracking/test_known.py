"""What could not be computed takes no part in means and comparisons, in whatever order it comes."""

from __future__ import annotations

import itertools
import math

import pytest

from sdpo.tracking.known import beats, best, is_known, known, mean
from sdpo.tracking.metric_names import part

UNKNOWN = [None, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", UNKNOWN)
def test_what_is_not_known_is_never_the_best_nor_better(bad):
    for order in itertools.permutations([("a", 0.25), ("b", bad), ("c", 0.5), ("d", bad)]):
        assert best(order, lambda item: item[1]) == ("c", 0.5)
    assert best([bad, bad], lambda value: value) is None and best([], lambda value: value) is None
    assert best([("first", 1.0), ("second", 1.0)], lambda item: item[1])[0] == "first"
    assert not beats(bad, 0.5) and not beats(bad, bad) and not beats(bad, -1.0)
    assert beats(0.0, bad)  # anything is better than what is not known
    assert beats(0.5, 0.25) and not beats(0.25, 0.25) and not beats(0.25, 0.5)


@pytest.mark.parametrize("bad", UNKNOWN)
def test_means_are_those_of_what_is_known(bad):
    assert known([1, bad, 2.5]) == [1, 2.5]
    assert mean([bad, 1, bad, 2]) == 1.5 and mean([bad]) is None and mean([]) is None
    assert not is_known("1") and not is_known(bad) and is_known(0)
    assert part({"verdict/right": 1.0, "verdict/wrong": bad}, "verdict") == {"right": 1.0}
