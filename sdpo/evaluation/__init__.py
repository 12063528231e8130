"""pass@k with intervals: counting, and results that can be stored.  Knows neither torch nor Ray."""

from __future__ import annotations

from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from sdpo.evaluation.count import count
from sdpo.evaluation.passk import pass_at_k
from sdpo.evaluation.results import EvaluationResult, ProblemResult

__all__ = [
    "Estimate",
    "EvaluationResult",
    "ProblemResult",
    "bootstrap_mean",
    "count",
    "pass_at_k",
]
