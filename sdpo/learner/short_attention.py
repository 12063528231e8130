"""Attention on a CPU for groups of short sequences: one call for many groups, where each would have two of its own.

A call for a handful of tokens takes longer to be made than to be computed.  So shared tokens and the sequences that
continue them become rows of a few batches, whichever groups they come from: the keys of a row are its group's shared
tokens, padded on the left, and its own, padded on the right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from sdpo.learner.packing import SharedPrefix

LONGEST = 128  # tokens of a sequence that is short
_CALL_SCORES = 1 << 14  # what one more call costs, in scores of a head


@dataclass(frozen=True)
class _Batch:
    rows: int
    queries: torch.Tensor  # int64 [rows · longest]: places in the pack
    keys: torch.Tensor  # int64 [rows · (most shared tokens + longest)]
    mask: torch.Tensor  # [rows, 1, longest, keys of a row]: added to the scores


@dataclass(frozen=True)
class _Layout:
    batches: tuple[_Batch, ...]
    order: torch.Tensor  # int64 [T]: where each token of the pack stands among the outputs, of the batches, then `rest`
    rest: tuple[int, ...]  # groups that are not short


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: tuple[SharedPrefix, ...],
    options: dict,
    attend_group: Callable[[SharedPrefix, tuple[torch.Tensor, ...]], torch.Tensor],
) -> torch.Tensor:
    """[1, heads, T, size] of a pack.

    attend_group: attention of one group, given its queries, keys and values, for those that are not short.
    """
    layout = _layout(groups, query.dtype)
    outputs = []
    for batch in layout.batches:
        q = _rows(query, batch.queries, batch.rows)
        k, v = (_rows(x, batch.keys, batch.rows) for x in (key, value))
        made = scaled_dot_product_attention(q, k, v, attn_mask=batch.mask, **options)
        outputs.append(made.transpose(0, 1).flatten(1, 2)[None])
    if layout.rest:
        parts = [x.split([group.length for group in groups], dim=2) for x in (query, key, value)]
        outputs += [attend_group(groups[i], tuple(part[i] for part in parts)) for i in layout.rest]
    return torch.cat(outputs, dim=2).index_select(2, layout.order)


def _rows(x: torch.Tensor, places: torch.Tensor, rows: int) -> torch.Tensor:
    """[1, heads, T, size] → [rows, heads, tokens of a row, size]"""
    return x[0].index_select(1, places).unflatten(1, (rows, -1)).transpose(0, 1)


@lru_cache(maxsize=8)  # for the layers of one pass; lengths do not come again later
def _layout(groups: tuple[SharedPrefix, ...], dtype: torch.dtype) -> _Layout:
    """dtype: of the masks, that of the queries."""
    starts = np.cumsum([0, *(group.length for group in groups)])
    order, before = np.empty(starts[-1], np.int64), 0
    # Of each row: its first token, its number of tokens, its group's first token, the number of shared ones before it.
    rows: list[tuple[int, int, int, int]] = []
    rest = []
    for i, (group, start) in enumerate(zip(groups, starts[:-1].tolist(), strict=True)):
        if group.shared + max(group.own, default=0) > LONGEST:
            rest.append(i)
            continue
        rows += [(start, group.shared, start, 0)] * (group.shared > 0)
        place = start + group.shared
        for own in filter(None, group.own):
            rows.append((place, own, start, group.shared))
            place += own
    rows.sort(key=lambda row: (-row[1], -row[3]))
    batches = []
    for first, stop in cut(len(rows), _costs(np.array(rows, np.int64).reshape(-1, 4)), _CALL_SCORES):
        place, count, origin, shared = np.array(rows[first:stop]).T[..., None]
        longest, most = count.max(), shared.max()
        ahead, own = np.arange(most) - (most - shared), np.arange(longest)  # [rows, most], [longest]
        queries = place + np.minimum(own, count - 1)
        keys = np.concatenate([origin + np.maximum(ahead, 0), queries], axis=1)
        seen = np.concatenate([ahead >= 0, np.ones_like(queries, bool)], axis=1)[:, None]
        seen = seen & (np.arange(most + longest) <= most + own[:, None])
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(torch.from_numpy(~seen), -torch.inf)[:, None]
        batches.append(_Batch(stop - first, *(torch.from_numpy(x.reshape(-1)) for x in (queries, keys)), mask))
        for row, (start, n) in enumerate(zip(place[:, 0], count[:, 0], strict=True)):
            order[start : start + n] = before + row * longest + np.arange(n)
        before += queries.size
    for i in rest:
        order[starts[i] : starts[i + 1]] = before + np.arange(groups[i].length)
        before += groups[i].length
    return _Layout(tuple(batches), torch.from_numpy(order), tuple(rest))


def _costs(rows: np.ndarray) -> Callable[[int], np.ndarray]:
    """Scores of a batch that begins at each of the first k rows and ends with the k-th, the longest rows first."""
    count, shared = rows[:, 1], rows[:, 3]

    def costs(k: int) -> np.ndarray:
        most = np.maximum.accumulate(shared[:k][::-1])[::-1]
        return np.arange(k, 0, -1) * count[:k] * (count[:k] + most)

    return costs


def cut(rows: int, costs: Callable[[int], np.ndarray], price: int) -> list[tuple[int, int]]:
    """(first, stop) of each batch of so many rows, so that costs + price · batches is the least.

    costs: of the batches that begin at each of the first k rows and end with the k-th, int64 [k].
    """
    least, begin = np.zeros(rows + 1, np.int64), [0]  # of the first k
    for k in range(1, rows + 1):
        sums = least[:k] + costs(k)
        begin.append(int(sums.argmin()))
        least[k] = sums[begin[k]] + price
    cuts, k = [], rows
    while k:
        cuts.append((begin[k], k))
        k = begin[k]
    return cuts[::-1]
