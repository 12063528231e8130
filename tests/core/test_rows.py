"""Loss weights, and how rows are dealt out to ranks and micro-batches."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.algorithms.base import LossPlan
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings
from sdpo.learner.rows import assign_to_ranks, loss_weighted_rows, split
from sdpo.types import Sample, TeacherContext


def sample(length: int, prompt: int = 3, gradient: bool = True, taught: bool = True) -> Sample:
    return Sample(
        prompt_ids=tuple(range(prompt)),
        response_ids=tuple(range(length)),
        sampler_log_probs=np.zeros(length, np.float32),
        advantages=np.ones(length, np.float32) if gradient else None,
        teacher=TeacherContext((1, 2), np.ones(length, np.float32)) if taught else None,
    )


def total(rows, name: str) -> float:
    return float(sum(getattr(row, name).sum() for row in rows))


def test_each_stream_divides_by_its_own_tokens():
    plan = LossPlan(PolicyGradientSettings(coefficient=0.5), DistillationSettings(coefficient=2.0))
    rows = loss_weighted_rows([sample(4, taught=False), sample(6)], plan, 8)
    assert rows[0].policy_gradient_weight == pytest.approx([0.05] * 4)
    assert rows[1].distillation_weight == pytest.approx([2 / 6] * 6)
    assert rows[0].distillation_weight == pytest.approx([0.0] * 4)
    assert rows[0].teacher_prompt_ids is None


def test_a_shared_normaliser_counts_tokens_of_either_stream():
    plan = LossPlan(PolicyGradientSettings(), DistillationSettings(), shared_normalizer=True)
    batch = [sample(4, taught=False), sample(6, gradient=False), sample(10, gradient=False, taught=False)]
    rows = loss_weighted_rows(batch, plan, 8)
    assert rows[0].policy_gradient_weight == pytest.approx([0.1] * 4)
    assert rows[1].distillation_weight == pytest.approx([0.1] * 6)
    assert total(rows, "policy_gradient_weight") + total(rows, "distillation_weight") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("aggregation", "wanted"),
    [
        ("token-mean", [1 / 10] * 4),
        ("seq-mean-token-mean", [1 / 8] * 4),
        ("seq-mean-token-sum", [1 / 2] * 4),
        ("fixed-length", [1 / 16] * 4),
    ],
)
def test_aggregations(aggregation, wanted):
    plan = LossPlan(PolicyGradientSettings(aggregation=aggregation))
    rows = loss_weighted_rows([sample(4), sample(6), sample(5, gradient=False)], plan, 8)
    assert rows[0].policy_gradient_weight == pytest.approx(wanted)


def packed(rows, micro) -> int:
    """Tokens of one pass: a prompt counts once, and the last token of a response is not run."""
    prompts = {rows[i].prompt_ids.tobytes(): len(rows[i].prompt_ids) for i in micro}
    return sum(prompts.values()) + sum(len(rows[i].response_ids) - 1 for i in micro)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_every_row_is_dealt_once_and_ranks_have_equal_numbers_of_micro_batches(ranks):
    rng = np.random.default_rng(ranks)
    batch = [sample(int(n), prompt=int(p)) for n, p in rng.integers(1, 40, (17, 2))]
    rows = loss_weighted_rows(batch, LossPlan(PolicyGradientSettings()), 64)
    shares = split(rows, ranks, 100)
    assert sorted(i for share in shares for micro in share for i in micro) == list(range(17))
    assert len({len(share) for share in shares}) == 1
    for share in shares:
        for micro in share:
            assert len(micro) <= 1 or packed(rows, micro) <= 100
    loads = [sum(packed(rows, micro) for micro in share) for share in shares]
    assert max(loads) - min(loads) <= 100


def test_ranks_without_work_get_rows_that_weigh_nothing():
    rows = loss_weighted_rows([sample(4)], LossPlan(PolicyGradientSettings(), DistillationSettings()), 8)
    dealt = assign_to_ranks(rows, split(rows, 3, 100))
    fillers = [row for rank in dealt for micro in rank for row in micro if not row.counts]
    assert len(fillers) == 2
    for row in fillers:
        assert len(row.response_ids) == 1
        assert not row.policy_gradient_weight.any() and not row.distillation_weight.any()
