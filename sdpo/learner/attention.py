"""Attention over packs, as implementations that transformers' models can be loaded with.

Each takes the queries, keys and values of a whole pack, [1, heads, T, size], and `groups` from the call of the model.
"eager" makes T×T scores and a mask; it is the definition that the others are tested against.  "sdpa" makes masks of a
block of queries at a time: where a window slides, and on CPUs for sequences that continue shared tokens.
"""

from __future__ import annotations

import inspect
from functools import lru_cache, partial

import numpy as np
import torch
from torch.nn.attention.bias import CausalBias, causal_lower_right
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from sdpo.errors import UserError
from sdpo.learner import short_attention
from sdpo.learner.flex_attention import Groups, attend
from sdpo.learner.packing import SharedPrefix

# What one more call costs, in rows of queries: a batch is cut where that saves more padding.
_CALL_ROWS = 64

# A CPU computes causal attention faster without a mask.  A sequence that continues its shared tokens by this many times
# their number is worth having their queries again: they are a tenth of it at most.
_LONG = 9

# On a CPU, the least number of queries in a block, and the most blocks.
_QUERY_BLOCK, _MOST_BLOCKS = 64, 8

# On a GPU, queries in a block where a window slides: a mask is as large as these and the keys that they see.
_WINDOW_BLOCK = 1024


class CannotPack(UserError):
    """A model that cannot compute several sequences in one pass, but perhaps each in a pass of its own."""

    @property
    def reason(self) -> str:
        return self.args[0]

    def __str__(self) -> str:
        options = "learner.packing=off, learner.micro_batch_tokens=null, and model.attention=sdpa or eager"
        return f"{self.reason}. Set {options}."


def register(attention: str) -> str:
    """The name under which a model is loaded with the packed form of `model.attention`."""
    # transformers takes every name with "flash" or "sdpa" in it for one of its own, and asks for what that one needs.
    name, form = {
        "sdpa": (f"{_PACKED}padded", _sdpa),
        "flash_attention_2": (f"{_PACKED}varlen", _flash),
        "flex_attention": (f"{_PACKED}blocks", _flex),
        "eager": (f"{_PACKED}eager", _masked),
    }[attention]
    AttentionInterface.register(name, form)
    return name


_PACKED = "packed_"


def is_packed(name: str | None) -> bool:
    """Whether an implementation of attention, by its name, is one of these forms."""
    return (name or "").startswith(_PACKED)


def check(model) -> None:
    """CannotPack for a model that takes no options for its attention, so that it cannot be told of packs."""
    options = inspect.signature(model.base_model.forward).parameters.values()
    if not any(option.kind is option.VAR_KEYWORD for option in options):
        raise CannotPack(_UNTOLD.format(model=f"{model.config.model_type}'s body"))


_UNTOLD = (
    "{model} does not pass on the options of its call, so packed attention cannot know where sequences begin and end"
)


def _sdpa(module, query, key, value, mask, *, groups=None, dropout=0.0, scaling=None, sliding_window=None, **rest):
    """Per group two calls of PyTorch's attention: the shared tokens, and the sequences that continue them.

    On a CPU, groups of short sequences have a few calls together.
    """
    _refuse(module, groups, rest)
    options = {"dropout_p": dropout, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    attend_group = partial(_attend_group, sliding_window=sliding_window, options=options)
    if query.is_cpu and (sliding_window is None or sliding_window >= short_attention.LONGEST):
        output = short_attention.attend(query, key, value, groups, options, attend_group)
    else:
        parts = zip(*(x.split([group.length for group in groups], dim=2) for x in (query, key, value)), strict=True)
        output = torch.cat([attend_group(group, part) for group, part in zip(groups, parts, strict=True)], dim=2)
    return output.transpose(1, 2).contiguous(), None


def _attend_group(group: SharedPrefix, qkv, sliding_window, options) -> torch.Tensor:
    shared, own = zip(*(x.split((group.shared, sum(group.own)), dim=2) for x in qkv), strict=True)
    outputs = []
    if group.shared:
        outputs.append(_causal(shared, sliding_window, options))
    if sum(group.own):
        outputs.append(_continue(group, shared, own, sliding_window, options))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _causal(qkv, sliding_window, options) -> torch.Tensor:
    length = qkv[0].shape[2]
    if sliding_window is not None and length > sliding_window:
        return _lower_right(*qkv, sliding_window, options)
    return _fused(*qkv, None, options)


def _fused(query, key, value, mask, options) -> torch.Tensor:
    """PyTorch's attention, causal where there is no mask, on a GPU by a kernel that does not make all T×T scores.

    There only FlashAttention takes heads that share keys.  Where it cannot run, each head gets a copy of its own.
    """
    if options["enable_gqa"] and not _shares_keys(query, value, mask):
        heads = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
        options = options | {"enable_gqa": False}
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, **options)


def _shares_keys(query, value, mask) -> bool:
    """Whether a kernel takes heads that share keys."""
    if not query.is_cuda:
        return True
    half = query.dtype in (torch.bfloat16, torch.float16)
    sizes = query.shape[-1] == value.shape[-1] <= 256
    return half and sizes and (mask is None or isinstance(mask, CausalBias))


def _continue(group: SharedPrefix, shared, own, sliding_window, options) -> torch.Tensor:
    """The own tokens of the group's sequences, in batches padded to the longest of each."""
    lengths = tuple(n for n in group.own if n)
    if len(lengths) == 1 and not group.shared:
        return _causal(own, sliding_window, options)
    batches, kept = _layout(group.shared, lengths, own[0].device)
    outputs = []
    for count, shortest, padded in batches:
        query, *rest = (_batch(x, count, padded) for x in own)
        key, value = (torch.cat([x.expand(count, -1, -1, -1), y], dim=2) for x, y in zip(shared[1:], rest, strict=True))
        if query.is_cpu and shortest >= _LONG * group.shared:
            query = torch.cat([shared[0].expand(count, -1, -1, -1), query], dim=2)
            output = _causal((query, key, value), sliding_window, options)[:, :, group.shared :]
        else:
            output = _lower_right(query, key, value, sliding_window, options)
        outputs.append(output.transpose(0, 1).flatten(1, 2))
    return torch.cat(outputs, dim=1).index_select(1, kept)[None]


def _batch(x: torch.Tensor, count: int, padded: torch.Tensor) -> torch.Tensor:
    """[1, heads, Σ own, size] → [count, heads, longest, size]"""
    return x[0].index_select(1, padded).unflatten(1, (count, -1)).transpose(0, 1)


def _lower_right(query, key, value, sliding_window, options) -> torch.Tensor:
    """Causal attention of queries that are the last of the keys' positions.

    A CPU works through a mask entry by entry, also where it forbids: blocks of queries leave out what lies ahead, and
    what lies behind a window.
    """
    queries, before = query.shape[2], key.shape[2] - query.shape[2]
    window = key.shape[2] if sliding_window is None else sliding_window
    if query.is_cpu:
        step = max(_QUERY_BLOCK, -(-queries // _MOST_BLOCKS))
    else:
        step = _WINDOW_BLOCK if key.shape[2] > window else queries
    outputs = []
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        first, seen = max(0, before + start + 1 - window), before + stop  # keys
        if seen > window:
            mask = _window(stop - start, seen - first, window, query)
        else:
            mask = causal_lower_right(stop - start, seen)
        keys = slice(first, seen)
        outputs.append(_fused(query[:, :, start:stop], key[:, :, keys], value[:, :, keys], mask, options))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


@lru_cache(maxsize=256)  # for the layers of one pass; lengths do not come again later
def _layout(shared: int, lengths: tuple[int, ...], device: torch.device) -> tuple[list, torch.Tensor]:
    """Batches (count, shortest, place of each entry among the own tokens), and places of these in all batches, flat."""
    starts, before = np.cumsum((0, *lengths[:-1])), 0
    batches, kept = [], [np.empty(0, np.int64)] * len(lengths)
    for members in _batches(shared, lengths):
        longest = lengths[members[0]]
        padded = [starts[i] + np.minimum(np.arange(longest), lengths[i] - 1) for i in members]
        batches.append((len(members), lengths[members[-1]], torch.from_numpy(np.concatenate(padded)).to(device)))
        for place, i in enumerate(members):
            kept[i] = before + place * longest + np.arange(lengths[i])
        before += len(members) * longest
    return batches, torch.from_numpy(np.concatenate(kept)).to(device)


def _batches(shared: int, lengths: tuple[int, ...]) -> list[list[int]]:
    """Indices of the sequences, the longest first, cut into batches: few, and with little padding.

    All of them together have no more padding than the tokens that sharing saves, so that it never costs more.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    rows, price = np.array([lengths[i] for i in order], np.int64), _CALL_ROWS
    while True:
        batches = short_attention.cut(len(rows), lambda k: rows[:k] * np.arange(k, 0, -1), price)
        padding = sum((stop - first) * int(rows[first]) for first, stop in batches) - sum(lengths)
        if padding <= shared * (len(lengths) - 1):  # holds at a price ≤ shared: to cut everywhere would cost no more
            return [order[first:stop] for first, stop in batches]
        price //= 2


def _window(queries: int, keys: int, window: int, like: torch.Tensor) -> torch.Tensor:
    """The queries are the last of the keys' positions; each sees the last `window` positions up to its own."""
    behind = torch.arange(keys - queries, keys, device=like.device)[:, None] - torch.arange(keys, device=like.device)
    return (behind >= 0) & (behind < window)


def _flash(module, query, key, value, mask, *, groups=None, dropout=0.0, scaling=None, sliding_window=None, **rest):
    """PyTorch's FlashAttention 2 over sequences of different lengths: no padding, and one call for the whole pack."""
    _refuse(module, groups, rest | ({"dropout": dropout} if dropout else {}))
    keys, query_ends, key_ends, longest = _varlen(groups, query.device)
    size = value.shape[-1]
    if size < query.shape[-1]:  # latent attention; FlashAttention has one size for all
        value = pad(value, (0, query.shape[-1] - size))
    output = varlen_attn(
        query[0].transpose(0, 1),
        *(x[0].index_select(1, keys).transpose(0, 1) for x in (key, value)),
        query_ends,
        key_ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),  # causal, aligned at the keys' end
        enable_gqa=True,
    )
    return output[None, ..., :size], None


@lru_cache(maxsize=4)
def _varlen(groups: Groups, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """(places of the keys, ends of the sequences among queries and among keys, the longest), for `_flash`."""
    keys, queries, start = [], [], 0
    for group in groups:
        shared = np.arange(start, start + group.shared)
        if group.shared:
            keys.append(shared)
            queries.append(group.shared)
        start += group.shared
        for own in filter(None, group.own):
            keys.append(np.concatenate([shared, np.arange(start, start + own)]))
            queries.append(own)
            start += own
    ends = (np.cumsum([0, *lengths], dtype=np.int32) for lengths in (queries, map(len, keys)))
    tensors = (torch.from_numpy(array).to(device) for array in (np.concatenate(keys), *ends))
    return *tensors, max(map(len, keys))


def _flex(
    module, query, key, value, mask, *,
    groups=None, dropout=0.0, scaling=None, sliding_window=None, softcap=None, s_aux=None, **rest,
):  # fmt: skip
    """FlexAttention with a block mask; the only one of these forms that caps scores and has sinks."""
    _refuse(module, groups, rest | ({"dropout": dropout} if dropout else {}))
    given = {"scale": scaling, "window": sliding_window, "softcap": softcap, "sinks": s_aux}
    return attend(query, key, value, groups, **given).transpose(1, 2).contiguous(), None


def _masked(module, query, key, value, mask, *, groups=None, dropout=0.0, scaling=None, sliding_window=None, **rest):
    """All tokens of the pack against all others, with a mask."""
    _refuse(module, groups, rest)
    allowed = torch.zeros(query.shape[2], query.shape[2], dtype=torch.bool)
    positions, start = [], 0
    for group in groups:
        shared = slice(start, start + group.shared)
        allowed[shared, shared] = True
        positions.append(torch.arange(group.shared))
        start = shared.stop
        for own in group.own:
            place = slice(start, start + own)
            allowed[place, shared] = allowed[place, place] = True
            positions.append(torch.arange(group.shared, group.shared + own))
            start = place.stop
    behind = torch.cat(positions)[:, None] - torch.cat(positions)
    allowed &= behind >= 0
    if sliding_window is not None:
        allowed &= behind < sliding_window
    heads = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(heads, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    weights = scores.masked_fill(~allowed.to(query.device), -torch.inf).float().softmax(-1).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _refuse(module, groups: Groups | None, options: dict) -> None:
    """What a form does not compute: biases by position; but for `_flex` attention sinks and soft-capped scores; in
    `_flash` and `_flex` dropout."""
    if groups is None:
        raise CannotPack(_UNTOLD.format(model=type(module).__name__))
    unknown = [name for name in ("s_aux", "softcap", "position_bias", "dropout") if options.get(name) is not None]
    if unknown:
        where = "in packs only flex_attention computes" if {*unknown} <= {"s_aux", "softcap"} else _NOWHERE
        raise CannotPack(f"{type(module).__name__} uses {', '.join(unknown)}, which {where}")


_NOWHERE = "packed attention does not support"
