"""FlexAttention over packs: its block mask entry by entry, its values against the definition and against transformers.

On a CPU it has no backward pass: gradients are tested where there is a GPU.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.learner import attention, model_check
from sdpo.learner.activations import layer_memory, typical_pack
from sdpo.learner.flex_attention import BLOCK, _places, attend, block_mask
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.shapes import shapes_of
from tests.learner.families import LONGEST, family

CPU = torch.device("cpu")
MIXED = (SharedPrefix(150, (300, 1, 140)), SharedPrefix(0, (70, 5)), SharedPrefix(40, (0, 260)))


def allowed(groups, window) -> torch.Tensor:
    """bool [T, T], token by token."""
    places = []  # (group, sequence or -1 for shared tokens, position)
    for number, group in enumerate(groups):
        places += [(number, -1, i) for i in range(group.shared)]
        for sequence, own in enumerate(group.own):
            places += [(number, sequence, group.shared + i) for i in range(own)]
    group, sequence, position = torch.tensor(places).T
    behind = position[:, None] - position
    same = (group[:, None] == group) & ((sequence == -1) | (sequence[:, None] == sequence))
    return same & (behind >= 0) & (behind < (window or len(places)))


groups_of = st.lists(
    st.builds(
        SharedPrefix,
        st.integers(0, 300),
        st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=2,
).map(tuple)


@settings(max_examples=12, deadline=None)
@given(groups=groups_of, window=st.sampled_from([None, 1, 100, 128, 300]))
def test_a_block_is_computed_where_a_query_sees_a_key_and_without_mask_where_all_see_all(groups, window):
    wanted = allowed(groups, window)
    mask, length = block_mask(groups, window, CPU), len(wanted)
    index, segment = torch.arange(length), _places(groups)[0]
    assert torch.equal(mask.mask_mod(None, None, index[:, None], index), wanted)
    rows = -(-length // BLOCK)
    padded = torch.zeros(rows * BLOCK, rows * BLOCK, dtype=torch.bool)
    padded[:length, :length] = wanted
    blocks = padded.view(rows, BLOCK, rows, BLOCK).transpose(1, 2).flatten(2)
    for row in range(rows):
        partial = mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]].tolist()
        full = mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist()
        seen_by_all = {column for column in range(rows) if blocks[row, column].all()}
        assert set(full) <= seen_by_all
        for column in seen_by_all - set(full):  # where the shared tokens end within a block it need not be known
            assert any(len(set(segment[place * BLOCK : (place + 1) * BLOCK])) > 1 for place in (row, column))
        assert sorted(partial + full) == [column for column in range(rows) if blocks[row, column].any()]


@pytest.mark.parametrize("window", [None, 90])
@pytest.mark.parametrize("heads", [(4, 2), (3, 3)])
def test_values_are_those_of_the_eager_form(window, heads):
    generator = torch.Generator().manual_seed(0)
    length = sum(group.length for group in MIXED)
    q, k, v = (torch.randn(1, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    expected, _ = attention._masked(None, q, k, v, None, groups=MIXED, sliding_window=window, scaling=0.7)
    found, _ = attention._flex(None, q, k, v, None, groups=MIXED, sliding_window=window, scaling=0.7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_sinks_and_caps_are_those_of_the_formulas():
    groups = (SharedPrefix(20, (30, 9)),)
    q, k, v = (torch.randn(1, 2, 59, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    sinks = torch.tensor([0.5, -2.0])
    scores = 1.5 * torch.tanh((q @ k.transpose(2, 3) / 2) / 1.5)
    scores = scores.masked_fill(~allowed(groups, None), -torch.inf)
    with_sink = torch.cat([scores, sinks[None, :, None, None].expand(1, 2, 59, 1)], -1)
    expected = with_sink.softmax(-1)[..., :-1] @ v
    found = attend(q, k, v, groups, softcap=1.5, sinks=sinks)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has no backward pass on a CPU")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    ("window", "softcap", "with_sinks"), [(None, None, False), (90, 1.5, False), (None, None, True)]
)
def test_gradients_on_a_gpu_are_those_of_the_formulas(dtype, bound, window, softcap, with_sinks):
    """‖found − wanted‖ ÷ ‖wanted‖ of values and gradients, against float64."""
    device, length = torch.device("cuda"), sum(group.length for group in MIXED)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, heads, length, 64, generator=generator) for heads in (4, 2, 2)] + [torch.randn(4)]
    seen = allowed(MIXED, window).to(device)

    def formula(q, k, v, sinks):
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        scores = q @ k.transpose(2, 3) / 8
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~seen, -torch.inf)
        if with_sinks:
            scores = torch.cat([scores, sinks[None, :, None, None].expand(1, 4, length, 1)], -1)
        return scores.softmax(-1)[..., :length] @ v

    def values(function, dtype):
        inputs = [x.to(device, dtype).requires_grad_() for x in drawn]
        output = function(*inputs)
        output.backward(torch.cos(torch.arange(output.numel(), device=device)).view_as(output).to(dtype))
        return [output.detach(), *(x.grad for x in (inputs if with_sinks else inputs[:3]))]

    found = values(
        lambda q, k, v, s: attend(q, k, v, MIXED, window=window, softcap=softcap, sinks=s if with_sinks else None),
        dtype,
    )
    for a, b in zip(found, values(formula, torch.float64), strict=True):
        assert (a.double() - b).norm() < bound * b.norm()


@pytest.mark.parametrize("kind", ["gemma2", pytest.param("gpt_oss", marks=pytest.mark.slow)])
def test_families_with_caps_and_sinks_are_packed_on_gpus(kind):
    """By the check before a run, which compares log-probs with those of plain transformers."""
    config = family(kind)
    assert model_check.check_configuration(config, longest=LONGEST).attention == "eager"
    found = model_check.check_configuration(config, "flash_attention_2", LONGEST, on_gpu=True)
    assert (found.packing, found.attention) == ("auto", "flex_attention")
    assert "in packs only flex_attention computes" in found.reason


def test_what_cannot_be_packed_is_not_packed_with_it_either():
    found = model_check.check_configuration(family("stablelm"), longest=LONGEST, on_gpu=True)
    assert (found.packing, found.attention) == ("off", "sdpa")


def test_no_copies_of_shared_keys_are_counted():
    """Bytes that a layer keeps for its backward pass: eight responses behind a long prompt."""
    groups = typical_pack(2048 + 8 * 256, 2048, 256, 8)
    forms = ("flash_attention_2", "flex_attention")
    flash, flex = (layer_memory(shapes_of(family("qwen3"), torch.bfloat16, form), groups)[0] for form in forms)
    copies = 8 * 2048 * 2 * 2 * 8 * 2  # the prompt's keys and values for each response: 2 heads of size 8, bfloat16
    assert flash.saved - flex.saved == pytest.approx(copies, rel=0.01)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "deepseek_v3"])
def test_packs_of_these_families_are_counted(kind):
    shapes = shapes_of(family(kind), torch.bfloat16, "flex_attention")
    short, long = (layer_memory(shapes, (SharedPrefix(0, (n,)),))[0] for n in (512, 1024))
    assert short.saved < long.saved < 2.1 * short.saved  # no scores: what is kept grows as the tokens do


def test_flex_attention_is_refused_on_a_cpu():
    with pytest.raises(UserError, match="flex_attention needs profile gpu"):
        load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ["model.attention=flex_attention"])
