"""Attention over packs by PyTorch's FlexAttention, on GPUs: one call for the whole pack, without padding, and without
copies of the keys that sequences share.

A block mask says which blocks of queries see which blocks of keys; blocks that do not see each other cost nothing.
It computes two things that the other packed forms do not: capped scores (Gemma 2) and attention sinks (gpt-oss).

On a CPU it has no backward pass, and makes all T×T scores; there it serves to check a model's numbers only.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache

import numpy as np
import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.nn.attention.varlen import AuxRequest as VarlenAuxRequest
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad

from sdpo.learner.packing import SharedPrefix

Groups = tuple[SharedPrefix, ...]

BLOCK = 128  # tokens of a block of queries, and of one of keys; PyTorch's default


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: Groups,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """[1, heads, T, size of a value] of queries [1, heads, T, size], keys and values [1, fewer heads, T, …].

    window   tokens that a token sees, itself included; None: all before it
    softcap  c of c·tanh(score / c)
    sinks    [heads]: a score in each softmax that belongs to no token
    """
    if query.is_meta:
        output, normaliser = _counted(query, key, value)
    else:
        output, aux = (_compiled() if query.is_cuda else _plain)(
            query,
            key,
            value,
            score_mod=None if softcap is None else _capped(softcap),
            block_mask=block_mask(groups, window, query.device),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            return_aux=AuxRequest(lse=True),
        )
        normaliser = aux.lse
    if sinks is not None:  # exp(lse) / (exp(lse) + exp(sink))
        share = torch.sigmoid(normaliser - sinks.float()[None, :, None])
        output = output * share[..., None].to(output.dtype)
    return output


def _counted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where memory is counted: FlexAttention knows no meta device, and keeps what FlashAttention does of one long
    sequence, output and logsumexp."""
    rows = [x[0].transpose(0, 1) for x in (query, key, value)]
    size = value.shape[3]
    if size < query.shape[3]:
        rows[2] = pad(rows[2], (0, query.shape[3] - size))
    ends = torch.empty(2, dtype=torch.int32, device="meta")
    length = query.shape[2]
    output, normaliser = varlen_attn(
        *rows, ends, ends, length, length, window_size=(-1, 0), enable_gqa=True, return_aux=VarlenAuxRequest(lse=True)
    )
    return output[..., :size].transpose(0, 1)[None], normaliser.view(1, query.shape[1], length)


def _plain(*tensors: torch.Tensor, **options):
    """Without a kernel, of which PyTorch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without")
        return flex_attention(*tensors, **options)


@cache
def _compiled():
    """Compiled for each kind of layer, with and without gradient.  `fullgraph`: what is compiled too often would else
    run uncompiled, and make T×T scores in silence."""
    return torch.compile(flex_attention, dynamic=True, fullgraph=True, recompile_limit=64)


@cache
def _capped(softcap: float):
    """One function for all layers, so that it is compiled once."""

    def capped(score, batch, head, query, key):
        return softcap * torch.tanh(score / softcap)

    return capped


@lru_cache(maxsize=4)  # for the layers of one pass: whole and windowed ones
def block_mask(groups: Groups, window: int | None, device: torch.device) -> BlockMask:
    """Of a pack: a token sees its group's shared tokens, and its own sequence's, up to itself."""
    length = sum(group.length for group in groups)
    segment, prefix, position = (torch.from_numpy(x).to(device) for x in _places(groups))

    def sees(batch, head, query, key):
        same = (segment[key] == segment[query]) | (segment[key] == prefix[query])
        seen = same & (key <= query)
        return seen if window is None else seen & (position[query] - position[key] < window)

    some, every = _blocks(groups, window)
    tables = [torch.from_numpy(x).to(device) for blocks in (some & ~every, every) for x in _ordered(blocks)]
    return BlockMask.from_kv_blocks(*tables, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))


def _places(groups: Groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each token the number of its segment (shared tokens, or what a sequence has of its own), that of the shared
    tokens that it sees, and its position in its sequence.  int32 [T]"""
    segment, prefix, position, count = [], [], [], 0
    for group in groups:
        shared = count
        for length, before in ((group.shared, 0), *((own, group.shared) for own in group.own)):
            segment.append(np.full(length, count, np.int32))
            prefix.append(np.full(length, shared, np.int32))
            position.append(np.arange(before, before + length, dtype=np.int32))
            count += 1
    return np.concatenate(segment), np.concatenate(prefix), np.concatenate(position)


def _blocks(groups: Groups, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """bool [rows, rows] by blocks of queries and of keys: whether a query sees a key, whether each sees all."""
    length = sum(group.length for group in groups)
    rows = -(-length // BLOCK)
    some, every = np.zeros((rows, rows), bool), np.zeros((rows, rows), bool)
    reach = length if window is None else window
    start = 0
    for group in groups:
        shared = start, start + group.shared
        for own, before in ((group.shared, 0), *((own, group.shared) for own in group.own)):
            begin, start = start, start + own
            for row in range(begin // BLOCK, -(-start // BLOCK)) if own else ():
                first, last = max(begin, row * BLOCK), min(start, (row + 1) * BLOCK) - 1  # queries
                # Keys that the first query begins with, and the last one; those before it that both of them see.
                own_keys = max(begin, first + 1 - reach), max(begin, last + 1 - reach)
                of_prefix = [shared[0] + max(0, before + query - begin + 1 - reach) for query in (first, last)]
                _fill(some[row], own_keys[0], last + 1)
                if before:
                    _fill(some[row], of_prefix[0], shared[1])
                if last - first + 1 == BLOCK:
                    _fill(every[row], own_keys[1], first, whole=True)
                    if before:
                        _fill(every[row], of_prefix[1], shared[1], whole=True)
    return some, every


def _fill(row: np.ndarray, low: int, high: int, whole: bool = False) -> None:
    """Marks the blocks that have keys of low … high − 1, or only such."""
    if low < high:
        row[slice(-(-low // BLOCK), high // BLOCK) if whole else slice(low // BLOCK, -(-high // BLOCK))] = True


def _ordered(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of marked blocks in each row, their places before all others), int32 [1, 1, rows] and [… rows, rows]"""
    places = np.argsort(~blocks, axis=1, kind="stable")
    return blocks.sum(1, dtype=np.int32)[None, None], places.astype(np.int32)[None, None]
