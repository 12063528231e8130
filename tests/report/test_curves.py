from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo.report.bounds import UNKNOWN, Bound, median, ratio
from sdpo.report.curves import best, by_label, last, mean_curve, reach, smooth
from sdpo.report.runs import load_run
from sdpo.tracking.metric_names import PassAtK, pass_at_k_metrics

exactly, above = Bound.exactly, Bound.above
NAN = math.nan


def test_reach_is_linear_between_evaluations_and_a_bound_if_never():
    curve = [(0.0, 0.1), (100.0, 0.3), (200.0, NAN), (300.0, 0.7), (400.0, 0.4)]
    assert reach(curve, 0.1) == exactly(0)
    assert reach(curve, 0.2).low == pytest.approx(50)
    assert reach(curve, 0.5).low == pytest.approx(200)
    assert reach(curve, 0.7) == exactly(300)
    assert reach(curve, 0.8) == above(400)
    assert reach([], 0.8) == UNKNOWN


def test_never_is_a_bound_in_medians_and_ratios_as_well():
    assert median([exactly(10), above(50), exactly(20)]) == exactly(
        20
    )  # wherever the second is, it is above the median
    assert median([exactly(60), above(50), exactly(20)]) == Bound(50, 60)
    assert median([above(90), above(50), exactly(20)]) == above(50)
    assert ratio(exactly(60), exactly(20)) == exactly(3)
    assert ratio(above(90), exactly(30)) == above(3)
    assert ratio(exactly(30), above(60)) == Bound(0, 0.5)
    assert ratio(above(30), above(60)) == UNKNOWN
    assert ratio(exactly(30), exactly(0)) == UNKNOWN


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=7), st.data())
def test_a_median_with_bounds_holds_the_true_one(values, data):
    """Whatever the values that were never seen are, their median lies in the stated range."""
    bounds = [above(v) if never else exactly(v) for v, never in values]
    truth = sorted(v + data.draw(st.integers(0, 5000)) if never else v for v, never in values)
    middle = (truth[(len(truth) - 1) // 2] + truth[len(truth) // 2]) / 2
    found = median(bounds)
    assert found.low <= middle <= found.high


@pytest.mark.parametrize(
    ("bound", "text"),
    [(exactly(1830), "1,830"), (above(9216), "> 9,216"), (Bound(0, 5), "< 5"), (Bound(2, 4), "2 – 4"), (UNKNOWN, "–")],
)
def test_how_bounds_read(bound: Bound, text: str):
    assert bound.text() == text


def test_a_mean_ends_where_the_shortest_seed_ends():
    assert mean_curve([[(0, 0.0), (10, 1.0)], [(0, 0.0), (5, 1.0), (20, 1.0)]]) == [(0, 0.0), (5, 0.75), (10, 1.0)]
    assert mean_curve([[(0, 1.0), (1, NAN), (2, 3.0)]]) == [(0, 1.0), (2, 3.0)]
    assert mean_curve([[(0, 1.0)], [(5, 2.0)]]) == []
    assert len(mean_curve([[(float(x), 1.0) for x in range(1000)]])) == 200


def test_smoothing_leaves_out_what_is_not_a_number():
    assert [y for _, y in smooth([(0, 1.0), (1, NAN), (2, 3.0), (3, 5.0)], 2)] == [1.0, 1.0, 3.0, 4.0]
    assert math.isnan(smooth([(0, NAN)], 3)[0][1])


def test_best_and_last_carry_their_interval_and_place(make_run):
    run = load_run(make_run(steps=4))
    top, end = best(run, PassAtK("train", 1)), last(run, PassAtK("train", 1))
    assert top == end and (top.generations, top.step) == (256, 4)
    assert (top.low, top.high) == pytest.approx((top.value - 0.05, top.value + 0.05))
    assert best(run, PassAtK("train", 99)) is None and last(run, PassAtK("train", 99)) is None


def test_of_two_rows_of_a_step_the_later_counts(make_run):
    run = load_run(make_run(steps=2))
    run.rows.append({"step": 2, "generations": 128, "wall_clock_s": 9.0, "eval/train/pass@1": 0.25})
    assert run.series("eval/train/pass@1")[-1] == (128.0, 0.25)
    assert last(run, PassAtK("train", 1)).value == 0.25


def test_sdpo_comes_first_and_datasets_have_an_order(make_run):
    runs = [load_run(make_run("grpo", seed)) for seed in (1, 0)] + [load_run(make_run("sdpo"))]
    assert [(label, [r.info.seed for r in members]) for label, members in by_label(runs).items()] == [
        ("sdpo", [0]),
        ("grpo", [0, 1]),
    ]
    keys = [
        "eval/held_out/pass@16",
        "eval/train/pass@4",
        "eval/train/pass@4/low",
        "eval/held_out/easy/pass@1",
        "eval/train/pass@1",
        "eval/held_out/hard/pass@1",
        "eval/held_out/pass@2",
        "train/pass_rate",
    ]
    assert [m.key for m in pass_at_k_metrics(keys)] == [keys[4], keys[1], keys[6], keys[0]]
    assert [m.key for m in pass_at_k_metrics(keys, parts=True)] == [keys[3], keys[5]]
