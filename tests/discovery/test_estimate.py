"""discovery@k against closed forms, and against simulated searches of known success probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.discovery.estimate import first_success, grid, of_samples, of_searches
from sdpo.evaluation.passk import pass_at_k

BUDGET = 64
KS = np.array([1, 2, 5, 16, 40, 64])
PROBABILITIES = np.array([0.3, 0.05, 0.01, 0.002])


def test_the_product_limit_by_hand():
    """Five searches: successes after 2, 3 and 3 attempts, cut off after 2 and 5."""
    values = first_success([2, 3, 3, 2, 5], [True, True, True, False, False], [1, 2, 3, 4, 5])
    after_3 = 1 - (1 - 1 / 5) * (1 - 2 / 3)
    assert values == pytest.approx([0, 1 / 5, after_3, after_3, after_3], abs=1e-15)


def test_without_early_ends_it_is_the_share_that_succeeded():
    random = np.random.default_rng(1)
    times = random.geometric(0.03, 200)
    solved = times <= BUDGET
    values = first_success(np.minimum(times, BUDGET), solved, KS)
    assert values == pytest.approx([(times <= k).mean() for k in KS], abs=1e-12)
    assert first_success([BUDGET] * 3, [False] * 3, KS).tolist() == [0] * len(KS)


@pytest.mark.parametrize("cut_off", [False, True], ids=["at the budget", "also before it"])
def test_simulated_searches_give_the_known_curve(cut_off):
    """Bias below .01, over questions of four known probabilities; searches that end early end at random."""
    random = np.random.default_rng(2)
    truth = np.mean([1 - (1 - p) ** KS for p in PROBABILITIES], axis=0)
    estimates = []
    for _ in range(400):
        times = random.geometric(np.repeat(PROBABILITIES, 10))
        ends = random.integers(1, 3 * BUDGET, len(times)) if cut_off else np.full(len(times), BUDGET)
        ends = np.minimum(ends, BUDGET)
        estimates.append(first_success(np.minimum(times, ends), times <= ends, KS))
    assert np.abs(np.mean(estimates, axis=0) - truth).max() < 0.01


def test_independent_samples_tell_more_and_the_same():
    random = np.random.default_rng(3)
    truth = np.mean([1 - (1 - p) ** KS for p in PROBABILITIES], axis=0)
    estimates = []
    for _ in range(400):
        right = random.binomial(BUDGET, PROBABILITIES)
        estimates.append(np.stack([pass_at_k(BUDGET, right, int(k)) for k in KS], 1).mean(0))
    assert np.abs(np.mean(estimates, axis=0) - truth).max() < 0.01
    curve = of_samples({str(i): (BUDGET, int(c)) for i, c in enumerate(right)}, KS)
    assert curve.value == pytest.approx(estimates[-1], abs=1e-12)


def test_intervals_are_over_questions_with_all_their_searches():
    alike = of_searches({"a": [(3, True), (BUDGET, False)], "b": [(3, True), (BUDGET, False)]}, KS)
    assert alike.value.tolist() == alike.low.tolist() == alike.high.tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5]
    apart = of_searches({"a": [(3, True)] * 2, "b": [(BUDGET, False)] * 2}, KS)
    assert apart.value.tolist() == alike.value.tolist()
    assert apart.low[-1] == 0 and apart.high[-1] == 1
    assert apart.attempts_to(0.5) == 5 and apart.attempts_to(0.6) is None


def test_the_grid_has_both_ends_and_no_number_twice():
    ks = grid(1024)
    assert ks[0] == 1 and ks[-1] == 1024 and (np.diff(ks) > 0).all() and grid(1).tolist() == [1]
