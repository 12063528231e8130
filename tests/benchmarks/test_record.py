"""The record of a benchmark, its page, and the count of arithmetic."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks import page
from benchmarks.common import QUIET, Record, interleave, median_ratio, medians
from sdpo.learner.arithmetic import Forward, layer_flops, projection_flops, rows, step_flops


@pytest.fixture
def written(tmp_path):
    record = Record("example", Namespace(small=False, output=tmp_path / "example.json"))
    record.finish(["side", "ms"], [["a | b", "1.5"]], ["A note."], extra=3)
    return tmp_path / "example.json"


def test_a_record_says_what_it_was_measured_on(written):
    values = json.loads(written.read_text())
    assert values["hardware"] and values["commit"] and values["versions"]["torch"] == torch.__version__
    assert values["rows"] == [["a | b", "1.5"]] and values["extra"] == 3
    assert values["quiet"] == (max(values["others_busy"]) < QUIET)


@pytest.mark.parametrize("quiet", [True, False])
def test_the_page_takes_over_tables_and_warns_of_busy_machines(written, tmp_path, quiet):
    values = json.loads(written.read_text()) | {"quiet": quiet}
    written.write_text(json.dumps(values))
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- example -->\nold\n<!-- end -->\n<!-- absent -->\n<!-- end -->\nafter\n")
    (tmp_path / "performance").mkdir()
    written.rename(tmp_path / "performance" / written.name)
    for _ in range(2):  # what is written can be replaced again
        page.main(document, tmp_path)
    text = document.read_text()
    assert "| a \\| b | 1.5 |" in text and "A note." in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n") and "Not measured yet." in text
    assert ("not to be trusted" in text) == (not quiet)


def test_sides_are_measured_in_turn():
    order: list[str] = []

    def side(name: str, seconds: float):
        def measure() -> dict[str, float]:
            order.append(name)
            return {"seconds": seconds * len(order)}

        return measure

    samples = interleave({"a": side("a", 2.0), "b": side("b", 1.0)}, 3)
    assert order == ["a", "b"] * 3
    assert medians(samples)["a"]["seconds"] == 6.0
    assert median_ratio(samples, "a", "b") == pytest.approx(1.5)  # of 2/2, 6/4, 10/6


def test_counted_arithmetic_is_what_torch_counts():
    """Eager attention multiplies the whole square, of which the count takes the causal half."""
    config = Qwen3Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    model = Qwen3ForCausalLM._from_config(config, attn_implementation="eager")
    prompt, response = 5, 12
    length = prompt + response
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.ones(1, length, dtype=torch.long), logits_to_keep=response).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    other_half = 3 * 2 * (4 * 16) * length**2
    rotary = 2 * 8 * length  # positions times frequencies, a product of inner size 1
    one = rows([(prompt, response)])
    counted = layer_flops(config, one) + projection_flops(config, one)
    assert forward == pytest.approx(counted + other_half, abs=2 * rotary)
    step = step_flops(config, one, rows([(2 * prompt, response)]))
    assert step["student"] == 3 * counted
    assert counter.get_total_flops() == pytest.approx(step["student"] + 3 * other_half, abs=2 * rotary)
    assert step["total"] == step["student"] + step["teacher"] > 4 * counted
    # Two responses behind a prompt that stands once: the attention of both to it is counted, its own only once.
    apart = layer_flops(config, Forward(((0, length), (0, length)), 0))
    shared = layer_flops(config, Forward(((0, prompt), (prompt, response), (prompt, response)), 0))
    assert apart - shared == layer_flops(config, Forward(((0, prompt),), 0))
