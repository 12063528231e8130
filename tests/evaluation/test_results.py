"""Results: what they say, stored and read back."""

from __future__ import annotations

import json

import pytest

from sdpo.errors import UserError
from sdpo.evaluation import EvaluationResult, ProblemResult, bootstrap_mean

RESULT = EvaluationResult(
    problems=(
        ProblemResult("a", 4, 4, "easy", {"accepted": 4}, 0, 10.0),
        ProblemResult("b", 4, 1, "hard", {"accepted": 1, "wrong answer": 3}, 1, 20.0),
        ProblemResult("c", 4, 0, "hard", {"runtime error": 4}, 2, 30.0),
        ProblemResult("d", 8, 2, "other", {"accepted": 2, "wrong answer": 6}, 0, 40.0),
    ),
    ks=(1, 4),
    dataset="made up",
    test_split="disjoint",
    problem_split="hash",
    sampling={"temperature": 0.6, "top_p": 0.95},
    policy_version=3,
)


def test_pass_at_k_is_the_mean_over_problems():
    assert RESULT.pass_at_k[1].value == pytest.approx((1 + 1 / 4 + 0 + 2 / 8) / 4)
    d = 1 - (6 * 5 * 4 * 3) / (8 * 7 * 6 * 5)
    assert RESULT.pass_at_k[4].value == pytest.approx((1 + 1 + 0 + d) / 4)
    assert RESULT.pass_at_k[1] == bootstrap_mean([1, 0.25, 0, 0.25])


def test_by_difficulty():
    assert list(RESULT.by_difficulty) == ["easy", "hard", "other"]
    assert RESULT.by_difficulty["hard"][1].value == pytest.approx(1 / 8)
    assert RESULT.by_difficulty["easy"][1].low is None


def test_metrics_are_flat_numbers():
    metrics = RESULT.metrics()
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["pass@1"] == RESULT.pass_at_k[1].value
    assert metrics["pass@1/low"] == RESULT.pass_at_k[1].low <= metrics["pass@1"] <= metrics["pass@1/high"]
    assert metrics["hard/pass@4"] == pytest.approx(0.5)
    assert "easy/pass@1/low" not in metrics
    assert metrics["verdict/wrong answer"] == pytest.approx(9 / 20)
    assert sum(value for key, value in metrics.items() if key.startswith("verdict/")) == pytest.approx(1)
    assert metrics["truncated"] == pytest.approx(3 / 20)
    assert metrics["response_tokens"] == pytest.approx((4 * 10 + 4 * 20 + 4 * 30 + 8 * 40) / 20)
    assert (metrics["problems"], metrics["samples"]) == (4, 20)


def test_stored_and_read_back(tmp_path):
    RESULT.save(tmp_path / "result.json")
    assert EvaluationResult.load(tmp_path / "result.json") == RESULT
    stored = json.loads((tmp_path / "result.json").read_text())
    assert (stored["test_split"], stored["problem_split"], stored["dataset"]) == ("disjoint", "hash", "made up")
    assert stored["estimates"]["all"]["pass@1"]["value"] == RESULT.pass_at_k[1].value
    assert stored["estimates"]["hard"]["pass@4"]["value"] == RESULT.by_difficulty["hard"][4].value


def test_a_result_from_before_thoughts_were_told_apart_followed_the_official_rule():
    stored = RESULT.to_json()
    del stored["thinking"]
    assert EvaluationResult.from_json(stored).thinking == "official"


def test_something_else_is_no_result(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        EvaluationResult.load(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        EvaluationResult.load(tmp_path / "broken.json")
    for stored in ({}, {"format": 1}, {**RESULT.to_json(), "extra": 1}, {**RESULT.to_json(), "problems": [{"n": 1}]}):
        with pytest.raises(UserError, match="not an evaluation result"):
            EvaluationResult.from_json(stored)
    with pytest.raises(UserError, match="format 99"):
        EvaluationResult.from_json({**RESULT.to_json(), "format": 99})
