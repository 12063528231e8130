"""From samples to rows with loss weights, and from rows to balanced micro-batches.

The weights contain the normalisers of the *whole* optimiser batch, so that a plain sum over rows, in any order, on any
number of ranks and in any micro-batches, is the loss.  Everything here is numpy on the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdpo.algorithms.base import LossPlan
from sdpo.learner.packing import conversations
from sdpo.losses.aggregate import counts, token_weights
from sdpo.types import Sample


@dataclass(frozen=True)
class Row:
    """One response as a rank trains on it.  Of R response tokens; weights: float32 [R], 0 where a stream is absent."""

    prompt_ids: np.ndarray  # int64 [P]
    response_ids: np.ndarray  # int64 [R]
    sampler_log_probs: np.ndarray  # float32 [R]
    advantages: np.ndarray | None  # float32 [R]; None: no policy gradient
    policy_gradient_weight: np.ndarray
    distillation_weight: np.ndarray
    reference_weight: np.ndarray
    teacher_prompt_ids: np.ndarray | None  # int64 [P']; None: this response has no teacher context
    old_log_probs: np.ndarray | None = (
        None  # float32 [R], of the policy that the batch began with; None: still that policy
    )
    counts: bool = True  # False for filler, which belongs to no metric
    turn: int = 1  # its number within its rollout
    recorded: bool = False  # whether the numbers of its tokens are wanted back
    contrasts: tuple[np.ndarray, ...] = ()  # int64 [P''] each: other prompts of the teacher, which a hook compares
    # Of a teacher of its own, where this response has a context: hidden states (`Scorer.score`), or a reference to
    # them; behind the teacher's prompt, and behind the student's where a target is blended of both.
    told: Any = None
    untold: Any = None


def loss_weighted_rows(samples: Sequence[Sample], plan: LossPlan, max_response_tokens: int) -> list[Row]:
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
                advantages=s.advantages,
                policy_gradient_weight=streams[0][i],
                distillation_weight=streams[1][i],
                reference_weight=streams[2][i],
                teacher_prompt_ids=None if s.teacher is None else np.asarray(s.teacher.prompt_ids, np.int64),
                turn=s.turn,
                recorded=s.recorded,
                contrasts=() if s.teacher is None else tuple(np.asarray(p, np.int64) for p in s.teacher.contrasts),
            )
        )
    return rows


def unweighted_row(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> Row:
    """A row to be scored only."""
    zeros = np.zeros(len(response_ids), np.float32)
    ids = (np.asarray(each, np.int64) for each in (prompt_ids, response_ids))
    return Row(*ids, zeros, None, zeros, zeros, zeros, None)


def reweighed(rows: Sequence[Row], factors: Sequence[np.ndarray | None]) -> list[Row]:
    """The rows with their distillation weights times what a weight hook returned."""
    return [
        row if f is None else replace(row, distillation_weight=(row.distillation_weight * f).astype(np.float32))
        for row, f in zip(rows, factors, strict=True)
    ]


def with_advantages(rows: Sequence[Row], advantages: Sequence[np.ndarray | None]) -> list[Row]:
    """The rows with the advantages that an advantage hook returned."""
    return [
        row if a is None else replace(row, advantages=a.astype(np.float32))
        for row, a in zip(rows, advantages, strict=True)
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

    The turns of a conversation stay together, and conversations with one first prompt, since a pack holds what they
    share once.  Ranks get about the same work (longest first, to the one with the least) and the same number of
    micro-batches, since collectives of ZeRO-2 and ZeRO-3 run in every one of them; an empty list asks for filler.  A
    micro-batch packs at most `micro_batch_tokens` tokens of the student (always one conversation), and the
    micro-batches of a rank about the same number.
    """
    talks = conversations([row.prompt_ids for row in rows], [row.response_ids for row in rows])
    total = sum(len(rows[talk[-1]].prompt_ids) + len(rows[talk[-1]].response_ids) for talk in talks)
    cut = _pieces(rows, talks, min(micro_batch_tokens, -(-total // ranks)))
    student = [_packed(rows, piece) for piece in cut]
    pieces = [[i for talk in piece for i in talk] for piece in cut]
    work = [3 * s + _teacher_tokens([rows[i] for i in piece]) for s, piece in zip(student, pieces, strict=True)]
    shares = _spread(range(len(pieces)), work, ranks)
    most = max(map(len, shares))
    count = min(most, max(-(-sum(student[p] for p in share) // micro_batch_tokens) for share in shares))
    while True:
        batches = [_spread(share, student, count) for share in shares]
        fullest = max(sum(student[p] for p in batch) for share in batches for batch in share)
        if fullest <= micro_batch_tokens or count == most:
            return [[[i for p in batch for i in pieces[p]] for batch in share] for share in batches]
        count += 1


def _pieces(rows: Sequence[Row], talks: Sequence[list[int]], limit: int) -> list[list[list[int]]]:
    """Conversations with one first prompt, cut where a pack of them would pass the limit."""
    groups: dict[bytes, list[list[int]]] = {}
    for talk in talks:
        groups.setdefault(rows[talk[0]].prompt_ids.tobytes(), []).append(talk)
    pieces = []
    for members in groups.values():
        piece: list[list[int]] = []
        for talk in members:
            if piece and _packed(rows, (*piece, talk)) > limit:
                pieces.append(piece)
                piece = []
            piece.append(talk)
        pieces.append(piece)
    return pieces


def _packed(rows: Sequence[Row], talks: Sequence[list[int]]) -> int:
    """Tokens of the student's pack of conversations with one first prompt."""
    shared = len(rows[talks[0][0]].prompt_ids)
    return shared + sum(
        len(rows[talk[-1]].prompt_ids) + len(rows[talk[-1]].response_ids) - 1 - shared for talk in talks
    )


def _teacher_tokens(rows: Sequence[Row]) -> int:
    return sum(len(r.teacher_prompt_ids) + len(r.response_ids) for r in rows if r.teacher_prompt_ids is not None)


def _spread(items: Iterable[int], sizes: Sequence[int], bins: int) -> list[list[int]]:
    """The items in bins of about equal size: the largest first, each to the lightest bin."""
    loads, spread = [0] * bins, [[] for _ in range(bins)]
    for item in sorted(items, key=lambda i: -sizes[i]):
        lightest = min(range(bins), key=loads.__getitem__)
        spread[lightest].append(item)
        loads[lightest] += sizes[item]
    return spread


def assign_to_ranks(rows: Sequence[Row], indices: Sequence[Sequence[Sequence[int]]]) -> list[list[list[Row]]]:
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
        recorded=False,
    )
