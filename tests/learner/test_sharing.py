"""What a shared prefix costs: positions and scores that are really computed, against those without sharing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from sdpo.learner import attention, short_attention
from sdpo.learner.packing import SharedPrefix, fill, pack
from sdpo.learner.rows import assign_to_ranks, split
from tests.learner.test_packing import _row

CPU = torch.device("cpu")


class Counted(TorchFunctionMode):
    """Calls of PyTorch's attention, and rows of queries and scores of all, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.rows = self.scores = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is scaled_dot_product_attention:
            query, key = arguments[:2]
            rows = query.shape[0] * query.shape[2]
            self.calls += 1
            self.rows += rows
            # is_causal leaves out what lies ahead, a mask does not
            self.scores += rows * (query.shape[2] + 1) / 2 if options.get("is_causal") else rows * key.shape[2]
        return function(*arguments, **options)


def computed(groups: tuple[SharedPrefix, ...], by_group: bool = False) -> Counted:
    """by_group: short groups, too, have calls of their own."""
    query = torch.zeros(1, 1, sum(group.length for group in groups), 1)
    with pytest.MonkeyPatch.context() as patch, Counted() as counted:
        if by_group:
            patch.setattr(short_attention, "LONGEST", 0)
        short_attention._layout.cache_clear()
        attention._sdpa(None, query, query, query, None, groups=groups)
        short_attention._layout.cache_clear()
    return counted


def check(prompts: list[np.ndarray], responses: list[int]) -> None:
    packed = pack(prompts, [np.zeros(n, np.int64) for n in responses], CPU)
    lengths = [len(p) + n - 1 for p, n in zip(prompts, responses, strict=True)]
    shared, alone = computed(packed.groups, True), computed(tuple(SharedPrefix(0, (n,)) for n in lengths), True)
    assert alone.rows == sum(lengths)
    assert packed.input_ids.shape[1] <= sum(lengths)
    assert shared.rows <= 1.1 * sum(lengths)
    assert shared.scores <= 1.25 * alone.scores + 64 * sum(lengths)  # blocks are at least 64 queries high
    check_short(packed.groups)


def check_short(groups: tuple[SharedPrefix, ...]) -> None:
    """Padding among short groups is paid for by the calls that it saves."""
    together, apart = computed(groups), computed(groups, True)
    price = short_attention._CALL_SCORES
    assert together.calls <= apart.calls
    assert together.scores + price * together.calls <= 2 * apart.scores + price * apart.calls  # masks forbid half


@pytest.mark.parametrize("window", [None, 50])
def test_long_sequences_are_those_of_the_mask(window):
    """Batches, blocks of queries, and sequences that run with their shared tokens: values and gradients."""
    groups = (SharedPrefix(7, (150, 1, 70, 0, 66, 5)), SharedPrefix(90, (600, 20, 300)), SharedPrefix(0, (30,)))
    groups = (SharedPrefix(6, (9, 2)), *groups, SharedPrefix(20, (40, 0, 3)), SharedPrefix(5, ()))  # two of them short
    generator = torch.Generator().manual_seed(0)
    size = (1, 2, sum(group.length for group in groups), 4)
    qkv = [torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    direction = torch.randn(size, generator=generator, dtype=torch.float64).transpose(1, 2)
    results = []
    for form in (attention._masked, attention._sdpa):
        output, _ = form(None, *qkv, None, groups=groups, sliding_window=window)
        results.append((output, *torch.autograd.grad((output * direction).sum(), qkv)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # the mask's form has its softmax in float32


def prompts_of(shared: int, own: list[int]) -> list[np.ndarray]:
    """Prompts that begin with the same tokens and then differ."""
    return [np.concatenate([np.zeros(shared, np.int64), np.full(n, i + 1)]) for i, n in enumerate(own)]


def test_one_long_response_among_questions_that_share_instructions():
    check(prompts_of(75, [20] * 12), [40] * 11 + [3000])


@pytest.mark.parametrize("shared", [1, 16, 75, 400])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_log_normal_lengths(shared, sigma):
    rng = np.random.default_rng(0)
    for count in (2, 8, 32):
        responses = np.minimum(rng.lognormal(4, sigma, count), 4000).astype(int) + 1
        check(prompts_of(shared, rng.integers(0, 30, count).tolist()), responses.tolist())
        check([np.zeros(shared, np.int64)] * count, responses.tolist())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 150), st.lists(st.integers(0, 150), max_size=6)), min_size=1, max_size=12))
def test_short_groups_are_computed_together(drawn):
    groups = (SharedPrefix(1, ()), *(SharedPrefix(shared, tuple(own)) for shared, own in drawn if shared + sum(own)))
    check_short(groups)
    generator = torch.Generator().manual_seed(0)
    size = (1, 2, sum(group.length for group in groups), 4)
    q, k, v = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3))
    expected, _ = attention._masked(None, q, k, v, None, groups=groups)
    found, _ = attention._sdpa(None, q, k, v, None, groups=groups)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_of_short_answers_takes_few_calls():
    groups = (SharedPrefix(7, (11, 3, 24, 9)),) * 16
    assert computed(groups, True).calls == 48
    assert computed(groups).calls <= 3


@settings(max_examples=150, deadline=None)
@given(
    shared=st.integers(1, 80),
    own=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 2000)), min_size=2, max_size=16),
)
@example(shared=1, own=[(1, n) for n in range(1, 17)])
@example(shared=1, own=[(0, 4**n) for n in range(6)])
@example(shared=80, own=[(0, 1)] * 15 + [(0, 2000)])
def test_lengths_that_are_hard_to_batch(shared, own):
    prompts, responses = zip(*own, strict=True)
    check(prompts_of(shared, list(prompts)), list(responses))


@settings(max_examples=150, deadline=None)
@given(
    branches=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=20),
    begin=st.integers(0, 40),
    limit=st.integers(1, 400),
)
def test_packs_of_the_teacher_keep_to_their_limit(branches, begin, limit):
    """Prompts that branch more than once, of which a pack shares one level."""
    prompts = [np.concatenate([np.zeros(begin + 1, np.int64), np.ones(a, np.int64), np.full(b, 2 + i)])
               for i, (a, b, _) in enumerate(branches)]  # fmt: skip
    responses = [n for _, _, n in branches]
    packs = fill(prompts, responses, limit)
    assert sorted(i for members in packs for i in members) == list(range(len(prompts)))
    for members in packs:
        made = pack([prompts[i] for i in members], [np.zeros(responses[i], np.int64) for i in members], CPU)
        assert len(members) == 1 or made.input_ids.shape[1] <= limit


@pytest.mark.parametrize("ranks", [1, 3])
def test_micro_batches_keep_to_their_limit_where_questions_share_instructions(ranks):
    rng = np.random.default_rng(0)
    rows = [_row(p, int(n)) for p in prompts_of(75, [20] * 12) for n in rng.lognormal(4, 1.5, 4).clip(1, 900)]
    for share in assign_to_ranks(rows, split(rows, ranks, 1000)):
        for batch in share:
            made = pack([r.prompt_ids for r in batch], [r.response_ids for r in batch], CPU)
            assert made.input_ids.shape[1] <= 1000
