"""Sequences packed into one row without padding, and prefixes that several of them share computed once.

A pack is a row of T tokens, group after group.  The sequences of a group begin with the same `shared` tokens, which
stand there once, followed by what is their own:

    [shared 1][own a][own b][own c][shared 2][own d][own e] …      positions of own tokens continue the shared ones

Each own token attends to the shared tokens of its group and to those before it in its own sequence
(`sdpo.learner.attention`), so its hidden state is the one of the sequence alone.  The responses to one question share
the whole prompt; the teacher's prompts for them share the question.

A conversation of several turns is one sequence with several responses in it: the tokens between them are attended to,
and predict nothing.  Conversations that begin with the same turns share these too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the driver deals out rows without importing torch
    import torch


@dataclass(frozen=True)
class SharedPrefix:
    shared: int
    own: tuple[int, ...]  # lengths; 0 where a sequence is the shared part and no more

    @property
    def length(self) -> int:
        return self.shared + sum(self.own)


@dataclass(frozen=True)
class Pack:
    """What a model runs on.  N response tokens in all, in the order in which the sequences were given."""

    input_ids: torch.Tensor  # int64 [1, T]
    position_ids: torch.Tensor  # int64 [1, T]
    predicts: torch.Tensor  # int64 [N]: where the hidden state stands that predicts a response token
    groups: tuple[SharedPrefix, ...]


def pack(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], device: torch.device) -> Pack:
    """One pack of prompts and responses, int64 [P] and [R], none empty.

    The last token of a conversation is left out: its hidden state predicts nothing.
    """
    import torch

    talks = conversations(prompts, responses)
    sequences = [np.concatenate([prompts[talk[-1]], responses[talk[-1]][:-1]]) for talk in talks]
    ids, positions, groups = [], [], []
    predicts: list[np.ndarray] = [np.empty(0, np.int64)] * len(prompts)
    start = 0
    for members, shared in _groups([prompts[talk[-1]] for talk in talks]):
        ids.append(sequences[members[0]][:shared])
        positions.append(np.arange(shared))
        own_start = start + shared
        for member in members:
            length = len(sequences[member])
            ids.append(sequences[member][shared:])
            positions.append(np.arange(shared, length))
            for i in talks[member]:
                places = np.arange(len(responses[i])) + len(prompts[i]) - 1  # within the conversation
                predicts[i] = places + np.where(places < shared, start, own_start - shared)
            own_start += length - shared
        groups.append(SharedPrefix(shared, tuple(len(sequences[i]) - shared for i in members)))
        start = own_start
    row = [torch.from_numpy(np.concatenate(parts)).to(device) for parts in (ids, positions, predicts)]
    return Pack(row[0][None], row[1][None], row[2], tuple(groups))


def fill(prompts: Sequence[np.ndarray], response_lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of the sequences in packs of at most `limit` tokens (one sequence at least).

    Sequences that share much stand together.
    """
    packs: list[list[int]] = []
    sharing, tokens = _Sharing(), 0
    for i in _sorted(prompts):
        length = len(prompts[i]) + response_lengths[i] - 1
        sharing.add(prompts[i])
        tokens += length
        if not packs or tokens - sharing.saved[-1] > limit:
            packs.append([])
            sharing, tokens = _Sharing(), length
            sharing.add(prompts[i])
        packs[-1].append(i)
    return packs


def conversations(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]) -> list[list[int]]:
    """Indices of the turns of each conversation, the first turn first; int64 prompts [P] and responses [R].

    A turn goes on from another one where its prompt begins with the other's prompt and response, so that the last turn
    holds the tokens of all.
    """
    whole = [np.concatenate(turn) for turn in zip(prompts, responses, strict=True)]
    order, last = _sorted(whole), list(range(len(whole)))
    for place in reversed(range(len(order))):
        turn = order[place]
        for other in order[place + 1 :]:
            if common_prefix(whole[turn], whole[other]) < len(whole[turn]):
                break  # what begins with this turn comes right behind it
            if len(whole[turn]) <= len(prompts[other]):
                last[turn] = last[other]
                break
    talks: dict[int, list[int]] = {}
    for turn in range(len(whole)):
        talks.setdefault(last[turn], []).append(turn)
    return [sorted(talk, key=lambda turn: len(whole[turn])) for talk in talks.values()]


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def _sorted(prompts: Sequence[np.ndarray]) -> list[int]:
    """Prompts that begin alike come one after the other."""
    return sorted(range(len(prompts)), key=lambda i: prompts[i].astype(">i8").tobytes())


def _groups(prompts: Sequence[np.ndarray]) -> list[tuple[list[int], int]]:
    """(members, tokens they share) of each group, so that the fewest tokens are left."""
    order, sharing = _sorted(prompts), _Sharing()
    for i in order:
        sharing.add(prompts[i])
    groups, k = [], len(order)
    while k:
        groups.append((order[sharing.begin[k] : k], sharing.prefix[k]))
        k = sharing.begin[k]
    return groups[::-1]


class _Sharing:
    """The best groups of the first k = 0, 1, … of sorted prompts: those that save the most tokens."""

    def __init__(self) -> None:
        self.saved, self.begin = [0], [0]  # tokens; where the last group begins
        self.prefix = [0]  # of the last group
        self._last, self._common = np.empty(0, np.int64), []  # common prefixes of neighbours

    def add(self, prompt: np.ndarray) -> None:
        k = len(self.saved)
        self._common.append(common_prefix(self._last, prompt))
        self._last = prompt
        saved, begin, prefix, shared = self.saved[k - 1], k - 1, 0, len(prompt)
        for first in range(k - 2, -1, -1):
            shared = min(shared, self._common[first + 1])
            if shared == 0:
                break
            gain = self.saved[first] + shared * (k - 1 - first)
            if gain > saved:
                saved, begin, prefix = gain, first, shared
        self.saved.append(saved)
        self.begin.append(begin)
        self.prefix.append(prefix)
