"""Updates that are skipped because a number is not finite: where that comes from, and the batch for a look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sdpo.learner.rows import Row

_ARRAYS = (
    "sampler_log_probs", "old_log_probs", "advantages", "policy_gradient_weight", "distillation_weight",
    "reference_weight",
)  # fmt: skip

# Per-token outputs that come from student or teacher alone; the others are made of these and the rows.
MADE_BY_MODELS = ("teacher_log_probs", "teacher_entropy", "log_probs", "entropy")


class BrokenWeights(Exception):
    """An optimiser step with a finite gradient left weights that are not finite."""

    def __init__(self, update: int, source: str) -> None:
        """`update`: number within its generation batch (from 1); `source`: the first bad tensor."""
        super().__init__(source)
        self.update, self.source = update, source


class TooManySkipped(Exception):
    """`learner.max_skipped` updates in a row were skipped."""

    def __init__(self, rows: Sequence[Row], update: int, source: str, in_a_row: int) -> None:
        """`rows`: of the last of them, `update` of its generation batch (from 1); `source`: the first bad tensor."""
        super().__init__(source)
        self.rows, self.update, self.source, self.in_a_row = rows, update, source, in_a_row

    def lines(self, decode: Callable[[list[int]], str]) -> str:
        """The batch as JSON, one response per line, as Python reads it (NaN and Infinity included)."""
        return "".join(json.dumps(_readable(row, decode)) + "\n" for row in self.rows)


def not_finite_input(rows: Iterable[Row], sampled: bool) -> str | None:
    """What of the rows themselves is not finite; `sampled`: whether the loss uses the sampler's log-probs."""
    for row in rows:
        for name in _ARRAYS:
            values = getattr(row, name)
            if values is None or (name == "sampler_log_probs" and not sampled):
                continue
            if (bad := first_not_finite(values)) is not None:
                return _place(name, row, bad, values[bad])
    return None


def not_finite_output(rows: Sequence[Row], outputs: dict[str, np.ndarray]) -> str | None:
    """What of the per-token outputs [N] of one micro-batch is not finite."""
    ends = np.cumsum([len(row.response_ids) for row in rows])
    for name, values in outputs.items():
        if (bad := first_not_finite(values)) is not None:
            i = int(np.searchsorted(ends, bad, side="right"))
            return _place(name, rows[i], bad - int(ends[i]) + len(rows[i].response_ids), values[bad])
    return None


def first_not_finite(values: np.ndarray) -> int | None:
    bad = np.flatnonzero(~np.isfinite(values))
    return int(bad[0]) if len(bad) else None


def _place(name: str, row: Row, token: int, value: float) -> str:
    start = row.response_ids[:8].tolist()
    return f"{name} is {value} at token {token} of the response that begins with the ids {start}"


def _readable(row: Row, decode: Callable[[list[int]], str]) -> dict:
    texts = {"prompt": row.prompt_ids, "response": row.response_ids, "teacher_prompt": row.teacher_prompt_ids}
    line = {name: None if ids is None else decode(ids.tolist()) for name, ids in texts.items()}
    line |= {f"{name}_ids": None if ids is None else ids.tolist() for name, ids in texts.items()}
    return line | {n: None if (v := getattr(row, n)) is None else np.asarray(v).tolist() for n in _ARRAYS}
