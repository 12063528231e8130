"""From samples to rows with loss weights, and from rows to balanced micro-batches.

The weights contain the normalisers of the *whole* optimiser batch, so that a plain sum over rows, in any order, on any
number of ranks and in any micro-batches, is the loss.  Everything here is numpy on the driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdpo.algorithms.base import LossPlan
from sdpo.losses.aggregate import counts, token_weights
from sdpo.types import Sample


@dataclass(frozen=True)
class Row:
    """One response as a rank trains on it.  Of R response tokens; weights: float32 [R], 0 where a stream is absent."""

    prompt_ids: np.ndarray  # int64 [P]
    response_ids: np.ndarray  # int64 [R]
    sampler_log_probs: np.ndarray  # float32 [R]
    advantages: np.ndarray  # float32 [R]
    policy_gradient_weight: np.ndarray
    distillation_weight: np.ndarray
    reference_weight: np.ndarray
    teacher_prompt_ids: np.ndarray | None  # int64 [P']; None: this response has no teacher context
    old_log_probs: np.ndarray | None = (
        None  # float32 [R], of the policy that the batch began with; None: still that policy
    )
    counts: bool = True  # False for filler, which belongs to no metric

    @property
    def student_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

    @property
    def tokens(self) -> int:
        """Length of the longest sequence that is run for this row: the teacher's, where it has one."""
        prompt = self.prompt_ids if self.teacher_prompt_ids is None else self.teacher_prompt_ids
        return max(len(prompt), len(self.prompt_ids)) + len(self.response_ids)


def weigh(samples: Sequence[Sample], plan: LossPlan, max_response_tokens: int) -> list[Row]:
    """Rows of one optimiser batch, with each stream's coefficient, aggregation and normaliser in its token weights."""
    gradient = [None if s.advantages is None else np.ones(len(s.response_ids)) for s in samples]
    distillation = [None if s.teacher is None else s.teacher.weight for s in samples]
    reference = [s.reference_weight for s in samples]
    either = None
    if plan.shared_normalizer:
        either = [_tokens_of(g, s) | _tokens_of(d, s) for g, d, s in zip(gradient, distillation, samples, strict=True)]
    streams = [
        _stream_weights(samples, weights, settings, max_response_tokens, counted)
        for weights, settings, counted in (
            (gradient, plan.policy_gradient, either),
            (distillation, plan.distillation, either),
            (reference, plan.reference, None),
        )
    ]
    rows = []
    for i, s in enumerate(samples):
        rows.append(
            Row(
                prompt_ids=np.asarray(s.prompt_ids, np.int64),
                response_ids=np.asarray(s.response_ids, np.int64),
                sampler_log_probs=np.asarray(s.sampler_log_probs, np.float32),
                advantages=np.zeros(len(s.response_ids), np.float32) if s.advantages is None else s.advantages,
                policy_gradient_weight=streams[0][i],
                distillation_weight=streams[1][i],
                reference_weight=streams[2][i],
                teacher_prompt_ids=None if s.teacher is None else np.asarray(s.teacher.prompt_ids, np.int64),
            )
        )
    return rows


def reweighed(rows: Sequence[Row], factors: Sequence[np.ndarray | None]) -> list[Row]:
    """The rows with their distillation weights times what a weight hook returned."""
    return [
        row if f is None else replace(row, distillation_weight=(row.distillation_weight * f).astype(np.float32))
        for row, f in zip(rows, factors, strict=True)
    ]


def _stream_weights(samples, weights, settings, max_response_tokens, counted) -> list[np.ndarray]:
    """Coefficient × the stream's own token weight × its aggregation; `counted`: tokens [R] of the normaliser."""
    zeros = [np.zeros(len(s.response_ids), np.float32) for s in samples]
    if settings is None:
        return zeros
    if counted is None:
        counted = [_tokens_of(w, s) for w, s in zip(weights, samples, strict=True)]
    masks = [tokens.astype(float) for tokens in counted]
    totals = counts(masks)
    fixed_length = max_response_tokens if settings.aggregation == "fixed-length" else None
    return [
        zero
        if weight is None
        else (
            settings.coefficient * weight * token_weights(mask, settings.aggregation, totals, fixed_length=fixed_length)
        ).astype(np.float32)
        for zero, weight, mask in zip(zeros, weights, masks, strict=True)
    ]


def _tokens_of(weight: np.ndarray | None, sample: Sample) -> np.ndarray:
    """bool [R]: the tokens that a stream trains on; one of weight 0 must not dilute the mean."""
    return np.zeros(len(sample.response_ids), bool) if weight is None else weight != 0


def split(rows: Sequence[Row], ranks: int, micro_batch_tokens: int) -> list[list[list[int]]]:
    """Indices of rows per rank and micro-batch: `[rank][micro-batch]`.

    Ranks get about the same number of tokens (longest first, to the lightest rank) and the same number of
    micro-batches, since collectives of ZeRO-2 and ZeRO-3 run in every one of them; an empty list asks for filler.
    A micro-batch holds rows of similar length, at most `micro_batch_tokens` tokens after padding (always one row).
    """
    order = sorted(range(len(rows)), key=lambda i: -rows[i].tokens)
    loads, shares = [0] * ranks, [[] for _ in range(ranks)]
    for i in order:
        lightest = min(range(ranks), key=loads.__getitem__)
        shares[lightest].append(i)
        loads[lightest] += rows[i].tokens
    batches = [_micro_batches(rows, share, micro_batch_tokens) for share in shares]
    most = max(len(b) for b in batches)
    return [b + [[] for _ in range(most - len(b))] for b in batches]


def _micro_batches(rows: Sequence[Row], indices: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """`indices` come longest first, so the first row of a micro-batch decides the padding."""
    batches: list[list[int]] = []
    for i in indices:
        if batches and (len(batches[-1]) + 1) * rows[batches[-1][0]].tokens <= micro_batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def deal(rows: Sequence[Row], indices: Sequence[Sequence[Sequence[int]]]) -> list[list[list[Row]]]:
    """The rows of each rank and micro-batch (`split`); a micro-batch without work gets a filler row."""
    return [[[rows[i] for i in batch] or [_filler(rows[0])] for batch in share] for share in indices]


def _filler(row: Row) -> Row:
    """A row of one response token that weighs nothing, for ranks that have less work than others."""
    zero = np.zeros(1, np.float32)
    return replace(
        row,
        prompt_ids=row.prompt_ids[:1],
        response_ids=row.response_ids[:1],
        sampler_log_probs=row.sampler_log_probs[:1],
        advantages=zero,
        policy_gradient_weight=zero,
        distillation_weight=zero,
        reference_weight=zero,
        teacher_prompt_ids=None if row.teacher_prompt_ids is None else row.teacher_prompt_ids[:1],
        old_log_probs=None if row.old_log_probs is None else row.old_log_probs[:1],
        counts=False,
    )
