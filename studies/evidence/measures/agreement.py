"""Are the tokens that the teacher wants changed the wrong ones?"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np


def wrong_tokens(response: Sequence[int], correct: Sequence[Sequence[int]]) -> np.ndarray:
    """bool [len(response)]: what a diff against the nearest correct program replaces or deletes.

    Where the diff inserts, the token in front of which something is missing is the wrong one.
    """
    matchers = [SequenceMatcher(None, list(response), list(other), autojunk=False) for other in correct]
    nearest = max(matchers, key=lambda matcher: matcher.ratio())
    wrong = np.zeros(len(response), bool)
    for kind, start, end, _, _ in nearest.get_opcodes():
        if kind in ("replace", "delete"):
            wrong[start:end] = True
        elif kind == "insert" and start < len(response):
            wrong[start] = True
    return wrong


def agreement(gap: np.ndarray, wrong: np.ndarray) -> tuple[float, float, float] | None:
    """(share of wrong tokens among the m that the teacher wants changed most, its expectation by chance, AUC).

    gap    [R]: log π − log q of each token, how much less likely the teacher finds it than the student
    wrong  [R]: m of them are true
    AUC is the probability that a wrong token has a greater gap than a right one; ties count half.  None where all
    tokens are wrong, or none.
    """
    m, n = int(wrong.sum()), len(wrong)
    if m in (0, n):
        return None
    top = np.argsort(-gap, kind="stable")[:m]
    bad, good = gap[wrong][:, None], gap[~wrong][None, :]
    auc = float((bad > good).mean() + 0.5 * (bad == good).mean())
    return float(wrong[top].mean()), m / n, auc
