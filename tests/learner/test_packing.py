"""Packs of sequences, with and without shared prefixes, against each sequence alone through plain transformers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.bias import CausalBias, causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sdpo.config.sections import ModelSettings
from sdpo.learner import attention
from sdpo.learner.model import load_model
from sdpo.learner.packing import SharedPrefix, fill, pack
from sdpo.learner.rows import Row, assign_to_ranks, split

VOCABULARY = 61


def sequences(seed: int, groups: int = 3, longest: int = 9):
    """Prompts in groups that begin alike, shuffled; responses of 1 and more tokens, two of them with equal prompts."""
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(groups):
        beginning = rng.integers(0, VOCABULARY, rng.integers(1, 12))
        for _ in range(rng.integers(1, 5)):
            prompts.append(np.concatenate([beginning, rng.integers(0, VOCABULARY, rng.integers(0, 4))]))
    prompts.append(prompts[0])
    prompts = [prompts[i] for i in rng.permutation(len(prompts))]
    return prompts, [rng.integers(0, VOCABULARY, rng.integers(1, longest)) for _ in prompts]


@pytest.fixture(scope="module", params=[None, 5], ids=["full", "sliding"])
def folder(request, tmp_path_factory):
    """A model with grouped queries; `sliding`: its second layer sees 5 tokens."""
    torch.manual_seed(0)
    layers = ["full_attention", "full_attention" if request.param is None else "sliding_attention"]
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=48, initializer_range=0.3, layer_types=layers,
        use_sliding_window=request.param is not None, sliding_window=request.param,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("form", ["sdpa", "eager"])
@pytest.mark.parametrize("seed", range(4))
def test_hidden_states_and_gradients_are_those_of_each_sequence_alone(folder, form, seed):
    prompts, responses = sequences(seed)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    alone = []
    for p, r in zip(prompts, responses, strict=True):
        ids = torch.from_numpy(np.concatenate([p, r]))[None]
        alone.append(plain.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(p) - 1 : -1])
    alone = torch.cat(alone)
    direction = torch.randn(alone.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (alone * direction).sum().backward()

    model = load_model(ModelSettings(path=str(folder), dtype="float32", attention=form), torch.float64)
    packed = pack(prompts, responses, torch.device("cpu"))
    assert packed.input_ids.shape[1] < sum(map(len, (*prompts, *responses))) - len(prompts)  # something is shared
    hidden = model.hidden(packed)
    (hidden * direction).sum().backward()
    torch.testing.assert_close(hidden, alone, rtol=1e-5, atol=1e-5)  # norms are computed in float32
    for (name, own), theirs in zip(model.model.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert (own.grad - theirs.grad).norm() < 1e-5 * theirs.grad.norm(), name


@pytest.mark.parametrize("window", [None, 5])
def test_sequences_handed_to_flash_attention_are_those_of_the_mask(window):
    """What FlashAttention documents, sequence by sequence: queries are the last positions of their keys."""
    prompts, responses = sequences(1)
    groups = pack(prompts, responses, torch.device("cpu")).groups
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, sum(g.length for g in groups), 4, generator=generator) for _ in range(3))
    expected, _ = attention._masked(None, q, k, v, None, groups=groups, sliding_window=window)
    keys, query_ends, key_ends, longest = attention._varlen(groups, q.device)
    found = []
    for i in range(len(query_ends) - 1):
        own, seen = slice(*query_ends[i : i + 2].tolist()), keys[slice(*key_ends[i : i + 2].tolist())]
        mask = attention._window(own.stop - own.start, len(seen), window or longest, q)
        found.append(scaled_dot_product_attention(q[:, :, own], k[:, :, seen], v[:, :, seen], attn_mask=mask))
    torch.testing.assert_close(torch.cat(found, 2).transpose(1, 2), expected)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("window", [3, 130, None])
def test_windows_are_computed_in_blocks_of_queries(monkeypatch, window, shares):
    """Masks hold a block's queries and the keys that these see, not all tokens; also where heads share no keys."""
    masks = []
    monkeypatch.setattr(attention, "_shares_keys", lambda *_: shares)

    def product(query, key, value, attn_mask=None, **options):
        assert shares or query.shape[1] == key.shape[1] == value.shape[1]
        if isinstance(attn_mask, torch.Tensor) and not isinstance(attn_mask, CausalBias):
            masks.append(attn_mask.shape)
        return scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", product)
    groups = (SharedPrefix(200, (700, 30)), SharedPrefix(0, (600,)))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 1530, 4, generator=generator) for h in (4, 2, 2))
    expected, _ = attention._masked(None, q, k, v, None, groups=groups, sliding_window=window)
    found, _ = attention._sdpa(None, q, k, v, None, groups=groups, sliding_window=window)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    longest = 900 // attention._MOST_BLOCKS + 1
    assert bool(masks) == (window is not None)
    assert all(queries <= longest and keys < queries + window for queries, keys in masks)


@pytest.mark.parametrize(("dtype", "size", "mask", "takes"), [
    (torch.bfloat16, 128, None, True),
    (torch.bfloat16, 128, causal_lower_right(3, 5), True),
    (torch.bfloat16, 128, torch.ones(3, 5, dtype=torch.bool), False),
    (torch.bfloat16, 512, None, False),
    (torch.float32, 128, None, False),
])  # fmt: skip
def test_heads_share_keys_on_gpus_only_where_flash_attention_can_run(dtype, size, mask, takes):
    """PyTorch's kernel without T×T scores for the other cases takes no shared keys."""
    x = SimpleNamespace(is_cuda=True, dtype=dtype, shape=(1, 2, 3, size))
    assert attention._shares_keys(x, x, mask) is takes


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 6), limit=st.integers(1, 120))
def test_packs_hold_every_sequence_once_and_no_more_than_asked(seed, groups, limit):
    prompts, responses = sequences(seed, groups)
    packs = fill(prompts, [len(r) for r in responses], limit)
    assert sorted(i for members in packs for i in members) == list(range(len(prompts)))
    device = torch.device("cpu")
    for members in packs:
        made = pack([prompts[i] for i in members], [responses[i] for i in members], device)
        assert sum(group.length for group in made.groups) == made.input_ids.shape[1]
        assert len(members) == 1 or made.input_ids.shape[1] <= limit + 12 * len(members)  # one prefix per group
        follows = made.input_ids[0, made.predicts[0]]
        assert follows == prompts[members[0]][-1]


def test_equal_prompts_are_there_once():
    prompt, device = np.arange(50), torch.device("cpu")
    responses = [np.arange(n) for n in (4, 1, 7)]
    packed = pack([prompt] * 3, responses, device)
    assert packed.input_ids.shape == (1, 50 + 3 + 0 + 6)
    assert packed.predicts.tolist() == [49, 50, 51, 52, 49, 49, 53, 54, 55, 56, 57, 58]
    assert packed.position_ids[0, -6:].tolist() == [50, 51, 52, 53, 54, 55]


def _row(prompt: np.ndarray, response: int, teacher: int | None = None) -> Row:
    zeros = np.zeros(response, np.float32)
    ids = np.zeros(response, np.int64)
    return Row(prompt, ids, zeros, zeros, zeros, zeros, zeros, None if teacher is None else np.zeros(teacher, np.int64))


@pytest.mark.parametrize("ranks, limit", [(1, 400), (2, 400), (2, 10_000), (3, 64), (4, 1)])
def test_ranks_and_micro_batches_are_balanced_by_tokens(ranks, limit):
    rng = np.random.default_rng(ranks)
    rows = []
    for _ in range(24):
        prompt = rng.integers(0, 1000, rng.integers(20, 60))
        rows += [_row(prompt, int(rng.integers(1, 30)), 80) for _ in range(4)]
    indices = split(rows, ranks, limit)
    assert sorted(i for share in indices for batch in share for i in batch) == list(range(len(rows)))
    assert len({len(share) for share in indices}) == 1
    tokens = []
    for share in assign_to_ranks(rows, indices):
        packs = [pack([r.prompt_ids for r in b], [r.response_ids for r in b], torch.device("cpu")) for b in share]
        tokens.append([p.input_ids.shape[1] for p in packs])
        assert all(t <= limit or len(b) == 1 for t, b in zip(tokens[-1], share, strict=True))
    loads = [sum(t) for t in tokens]
    assert max(loads) < 1.15 * min(loads)
    if limit == 400:
        assert max(map(max, tokens)) < 1.4 * min(map(min, tokens))
    if limit == 1:
        assert all(len(batch) <= 1 for share in indices for batch in share)
        assert len(indices[0]) < 1.2 * len(rows) / ranks
    if limit == 10_000:  # one micro-batch: a prompt is there once unless its group is cut between ranks
        assert [len(share) for share in indices] == [1] * ranks


@pytest.mark.parametrize("form", ["sdpa", "eager", "flash_attention_2", "flex_attention"])
def test_a_model_loads_with_every_attention(model, form):
    """Also the one that needs a GPU, when it runs."""
    loaded = load_model(ModelSettings(path=str(model), dtype="float32", attention=form), torch.float32)
    assert loaded.model.config._attn_implementation == attention.register(form)
