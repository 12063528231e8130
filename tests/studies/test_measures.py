"""Token classes, agreement with a diff, the pair of a checkpoint, and counts of skills."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdpo.checkpoints.slices import SliceWriter
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.errors import UserError
from studies.evidence.evidence import Evidence
from studies.evidence.index import Index
from studies.evidence.measures import parts
from studies.evidence.measures.agreement import agreement, wrong_tokens
from studies.evidence.measures.skills import by_condition
from studies.evidence.measures.teacher_model import load_pair, logits
from studies.evidence.measures.token_classes import OPERATION_NAMES, token_classes
from studies.evidence.record import Record
from studies.pretrain.sampling import Sampler
from studies.pretrain.skills import Judged

POLICY = PROJECT / "policies" / "minicode"


def classes(program: str) -> dict[str, str]:
    """Token → class, by the bundled tokenizer."""
    tokenizer = Sampler(POLICY).tokenizer
    tokens = [tokenizer.decode([i]) for i in tokenizer.encode(program, add_special_tokens=False)]
    assert "".join(tokens) == program
    return dict(zip(tokens, token_classes(tokens), strict=True))


def test_operations_names_and_boilerplate():
    found = classes(
        "```python\nx = list(map(int, input().split()))\nx = [2*v for v in x]\nprint(*x)\nprint(max(x))\n```"
    )
    assert found["max"] == "operation" and found["2"] == "operation" and found["*"] == "operation"
    assert found["v"] == "name" and found["x"] == "name"
    for token in (
        "```python\n",
        "x = list(map(int, input().split()))\n",
        "\nprint(",
        "\nprint(*x)",
        "\n```",
        " for v in x",
    ):
        assert found[token] == "boilerplate", token
    assert {"max", "sorted", "len", "upper"} <= OPERATION_NAMES and not {"x", "v", "for"} & OPERATION_NAMES


def test_the_name_of_a_library_function_is_an_operation_wherever_it_is_split():
    found = classes("import kit\nx = list(map(int, input().split()))\nprint(kit.zorpOf(x))")
    pieces = [kind for token, kind in found.items() if token and token in "zorpOf"]
    assert pieces and set(pieces) == {"operation"} and found["x"] == "name" and found["import kit\n"] == "boilerplate"


def test_wrong_tokens_are_those_that_the_nearest_correct_program_changes():
    assert wrong_tokens([1, 2, 3, 4], [[1, 9, 3, 4]]).tolist() == [False, True, False, False]  # replaced
    assert wrong_tokens([1, 2, 3, 4], [[1, 3, 4]]).tolist() == [False, True, False, False]  # deleted
    assert wrong_tokens([1, 3, 4], [[1, 2, 3, 4]]).tolist() == [False, True, False]  # missing in front of 3
    assert wrong_tokens([1, 2, 3, 4], [[7, 7, 7, 7], [1, 2, 3, 5]]).tolist() == [False, False, False, True]


def test_agreement_by_hand():
    gap, wrong = np.array([0.0, 5.0, 1.0, 3.0]), np.array([False, True, True, False])
    # the two largest gaps are tokens 1 and 3: one of two wrong; pairs won: 5>0, 5>3, 1>0 of four
    assert agreement(gap, wrong) == (0.5, 0.5, 0.75)
    assert agreement(gap, np.zeros(4, bool)) is None and agreement(gap, np.ones(4, bool)) is None
    assert agreement(np.zeros(4), wrong)[2] == 0.5


def recipe(*overrides: str):
    return load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", overrides)


def test_the_moving_average_of_a_checkpoint_becomes_the_teacher(tmp_path):
    before = load_pair(recipe(), None, 0)
    assert before.student is before.teacher
    before.student.model.save_pretrained(tmp_path / "policy")
    before.student.tokenizer.save_pretrained(tmp_path / "policy")
    weights = {f"model.{name}": p.detach() + 0.5 for name, p in before.student.model.named_parameters()}
    writer = SliceWriter(tmp_path, 0)
    for name, weight in weights.items():
        writer.add("average", name, tuple(weight.shape), 0, weight)
    writer.close({})
    pair = load_pair(recipe(), tmp_path, 0)
    for (name, student), teacher in zip(
        pair.student.model.named_parameters(), pair.teacher.model.parameters(), strict=True
    ):
        torch.testing.assert_close(teacher, weights[f"model.{name}"])
        torch.testing.assert_close(student + 0.5, teacher)
    with pytest.raises(UserError, match="mixes two models"):
        load_pair(recipe("teacher.kind=trust_region", "teacher.clock=null"), tmp_path, 0)


def test_logits_of_a_padded_batch_belong_to_the_response_tokens():
    sampler = Sampler(POLICY)
    prompts, responses = [[2, 9, 10, 3], [2, 11, 3]], [[20, 21], [22, 23, 24, 25]]
    for batch in (1, 2):
        found = logits(sampler.model, prompts, responses, batch)
        for prompt, response, rows in zip(prompts, responses, found, strict=True):
            alone = sampler.model(input_ids=torch.tensor([prompt + response])).logits[0].detach()
            torch.testing.assert_close(rows, alone[len(prompt) - 1 : -1], atol=1e-4, rtol=1e-4)


def test_sampled_ids_stop_at_the_end_token():
    sampler = Sampler(POLICY, max_new_tokens=48)
    prompt = sampler.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Print the `sum` of the values."}], add_generation_prompt=True, return_dict=False
    )
    (ids,), (text,) = sampler.sample_ids([prompt]), sampler.sample([prompt])
    assert ids.count(sampler.tokenizer.eos_token_id) == 1 and ids[-1] == sampler.tokenizer.eos_token_id
    assert sampler.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_outcomes_are_counted_problem_by_problem():
    outcomes = [
        Judged("first try", 1, problem, "k", "easy", ok) for problem, ok in (("a", True), ("b", False), ("a", False))
    ]
    assert by_condition(outcomes) == {"first try": {"n": [2, 1], "passed": [1, 0]}}


def test_without_checkpoints_the_command_says_how_to_get_them(studies, tuned):
    with pytest.raises(UserError, match="there are none yet: python -m studies results comparison"):
        parts.teacher(Evidence.load(studies, tuned), tuned, print)
    chosen = {"tuning": {"chosen": {"sdpo": {"set": ["learner.lr=2e-3"]}, "grpo": {"set": []}}}}
    for run in ("sdpo-fast", "grpo"):  # as the runner notes what a record answers
        record = Record.load(tuned.record(f"tuning/{run}-world0"))
        record.used_by.append(f"comparison/{record.algorithm}-world0")
        record.save(tuned.record(record.run))
    with pytest.raises(UserError, match="checkpoints of tuning/sdpo-fast-world0 are not in"):
        parts.teacher(Evidence(studies, Index.of(tuned), settings=chosen), tuned, print)
