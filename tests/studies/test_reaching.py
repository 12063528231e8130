"""Generations until a pass rate, ratios and their intervals, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdpo.report.bounds import Bound
from sdpo.report.reaching import crossings, draws, quantiles, reach
from studies.evidence.reaching import Passes, median_ratio, reach_ratio
from tests.helpers.records import record

XS = np.array([0.0, 320.0, 640.0])


def passes(rows: list[list[int]], **options) -> Passes:
    return Passes.of(record("comparison/x", {"train": rows}, **options), "train")


def test_crossings_are_linear_between_evaluations():
    curves = np.array([[0.0, 0.4, 0.8], [0.5, 0.2, 0.9], [0.0, 0.1, 0.2], [0.0, 0.5, 0.1]])
    assert crossings(XS, curves, 0.5).tolist() == [400.0, 0.0, math.inf, 320.0]


def test_pass_at_k_comes_from_the_counts():
    one = record("comparison/x", {"train": [[0, 1], [2, 4]]})
    assert Passes.of(one, "train").curve.tolist() == [0.125, 0.75]
    assert Passes.of(one, "train", k=2).curve.tolist() == pytest.approx([0.25, (5 / 6 + 1) / 2])
    assert Passes.of(one, "train", difficulty="medium").curve.tolist() == [0.25, 1.0]


def test_resampling_draws_whole_problems():
    p = passes([[0, 4], [4, 4]])
    assert p.resampled(np.array([[0, 0], [0, 1], [1, 1]])).tolist() == [[0, 1], [0.5, 1], [1, 1]]
    assert draws(5).shape == (2000, 5) and (draws(5) == draws(5)).all()


def test_never_is_a_bound():
    never = reach(passes([[0, 0], [1, 1], [1, 1]]), 0.5)
    assert never.value == Bound.above(640) and never.text() == "> 640 [> 640]"
    exact = reach(passes([[0, 0], [2, 2], [4, 4]]), 0.75)  # all problems alike: nothing to resample
    assert exact.value == Bound.exactly(480) and exact.text() == "480 [480, 480]"


def test_the_ratio_of_alike_problems_is_exact_and_of_a_late_one_a_bound():
    fast = passes([[0, 0], [4, 4], [4, 4]])  # reaches .5 at 160
    slow = passes([[0, 0], [1, 1], [3, 3]])  # .25 at 320, .75 at 640: .5 at 480
    assert reach_ratio(slow, fast, 0.5).text("{:.1f}") == "3.0 [3.0, 3.0]"
    never = passes([[0, 0], [1, 1], [1, 1]])
    assert reach_ratio(never, fast, 0.5).text("{:.1f}") == "> 4.0 [> 4.0]"
    assert reach_ratio(never, never, 0.5).text() == "–"


def test_the_interval_covers_what_other_problems_would_give():
    rng = np.random.default_rng(0)
    rows = [[0] * 40, rng.integers(0, 4, 40).tolist(), [4] * 40]
    estimate = reach(passes(rows), 0.5)
    assert estimate.low < estimate.value.low < estimate.high
    # .5 lies between the evaluations at 320 (mean m) and 640: the crossing moves with m alone.
    m = np.mean(rows[1]) / 4
    assert estimate.value.low == pytest.approx(320 + 320 * (0.5 - m) / (1 - m) if m < 0.5 else 320 * 0.5 / m)


def test_median_over_worlds():
    pairs = {}
    for world, (late, early) in enumerate([(4, 4), (2, 4), (1, 4)]):
        fast = passes([[0, 0], [early, early]], world=world)
        slow = passes([[0, 0], [late, late]], world=world)
        pairs[world] = (slow, fast)
    # .25 after 80 of 320 generations; slow: after 80, 160 and 320: ratios 1, 2, 4
    assert median_ratio(pairs, 0.25).text("{:.1f}") == "2.0 [2.0, 2.0]"
    with pytest.raises(ValueError, match="same problems"):
        reach_ratio(pairs[0][0], pairs[1][1], 0.25)


def test_quantiles_keep_open_ends():
    assert quantiles([Bound.exactly(2.0)] * 50 + [Bound.above(5.0)] * 50) == (2.0, math.inf)
