"""Any rows are dealt out once each, and packed so that every response token is predicted in its place."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from sdpo.learner.packing import pack
from sdpo.learner.rows import assign_to_ranks, split, unweighted_row
from tests.helpers.properties import holds_for

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=7)
# Few different tokens, so that prompts share beginnings, go on from one another, and are equal.
TURNS = st.lists(st.tuples(IDS, IDS, st.integers(0, 3)), min_size=1, max_size=9)


def rows_of(turns):
    """The number says how many turns before it a turn goes on from, where there is one."""
    rows = []
    for prompt, response, back in turns:
        if back and back <= len(rows):
            before = rows[-back]
            prompt = [*before.prompt_ids.tolist(), *before.response_ids.tolist(), *prompt]
        rows.append(unweighted_row(prompt, response))
    return rows


def own_tokens(group, start):
    """Where the tokens of each of a group's sequences stand in the pack."""
    shared, end = list(range(start, start + group.shared)), start + group.shared
    for length in group.own:
        yield [*shared, *range(end, end + length)]
        end += length


@holds_for(50, 3000, turns=TURNS)
def test_any_pack_predicts_every_token_of_every_response_from_what_stood_before_it(turns):
    rows = rows_of(turns)
    made = pack([r.prompt_ids for r in rows], [r.response_ids for r in rows], torch.device("cpu"))
    ids, places = made.input_ids[0].numpy(), made.predicts.numpy()
    assert sum(group.length for group in made.groups) == len(ids) == made.position_ids.shape[1]
    seen, start = {}, 0  # place of a token → the sequences through it
    for group in made.groups:
        for sequence in own_tokens(group, start):
            for k, place in enumerate(sequence):
                seen.setdefault(place, []).append(sequence[: k + 1])
        start += group.length
    at = 0
    for row in rows:
        whole = [*row.prompt_ids.tolist(), *row.response_ids.tolist()]
        for k in range(len(row.response_ids)):
            before = whole[: len(row.prompt_ids) + k]
            assert int(made.position_ids[0, places[at]]) == len(before) - 1
            assert any(ids[path].tolist() == before for path in seen[int(places[at])])
            at += 1
    assert at == len(places)


@holds_for(50, 3000, turns=TURNS, ranks=st.integers(1, 4), limit=st.integers(1, 60))
def test_any_batch_is_dealt_out_once_with_as_many_micro_batches_on_every_rank(turns, ranks, limit):
    rows = rows_of(turns)
    shares = split(rows, ranks, limit)
    assert len(shares) == ranks and len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(len(rows)))
    dealt = assign_to_ranks(rows, shares)
    for share, given in zip(shares, dealt, strict=True):
        for batch, own in zip(share, given, strict=True):
            assert own and sum(row.counts for row in own) == len(batch)
            tokens = pack([r.prompt_ids for r in own], [r.response_ids for r in own], torch.device("cpu"))
            firsts = {rows[i].prompt_ids[:1].tobytes() for i in batch}
            assert tokens.input_ids.shape[1] <= limit or len(firsts) <= len(batch)
            assert np.isfinite(tokens.input_ids.numpy()).all()
