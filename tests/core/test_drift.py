"""DRIFT: what a question's history is, what it decides, and that it is part of a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from sdpo.algorithms import build_algorithm
from sdpo.algorithms.drift import History, gates
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.training.checkpoints import TrainerState
from tests.helpers.prompts import builder
from tests.helpers.tasks import UNGRADED, group, problem, with_outcome


def drift(*overrides: str):
    options = ("algorithm.warmup_batches=0", *overrides)
    return build_algorithm(load_recipe(find_recipe("livecodebench", "drift"), "cpu", options))


def question(name: str, passed: list[bool], word: str = "answer"):
    return group(passed, [f"{word} {i} to {name}" for i in range(len(passed))], problem(name=name))


def assign(algorithm, contexts, *groups, seed=0):
    return algorithm.assign(list(groups), contexts, np.random.default_rng(seed))


def test_old_rollouts_count_less_and_a_short_history_says_little():
    history = History()
    assert history.rate == 0.5
    history.count(question("a", [True, False, False, False]), 1, 0.85)
    assert (history.right, history.wrong) == (1, 3)
    assert history.rate == pytest.approx(4 / 12 * 2 / 6 + 8 / 12 / 2)
    ungraded = with_outcome(question("a", [True, True, False]), 2, UNGRADED)
    history.count(ungraded, 4, 0.85)
    assert (history.right, history.wrong) == pytest.approx((0.85**3 + 2, 3 * 0.85**3))


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_the_gates_add_up_to_one(rate):
    h, m, e = gates(rate, 0.3, 0.7)
    assert h + m + e == pytest.approx(1) and min(h, m, e) > 0
    assert (h, e) == pytest.approx(gates(1 - rate, 0.3, 0.7)[::-1][::2])
    assert rate != 0.3 or (h == pytest.approx(0.5, abs=0.01) and m == pytest.approx(0.5, abs=0.01))


def test_the_same_responses_are_learned_by_what_the_question_has_been(tokenizer):
    """Distilled if it has been hard, reinforced if it has been middling, and next to nothing if it has been easy."""
    contexts, found = builder(tokenizer, feedback="always"), {}
    for name, before in (("hard", [False] * 40), ("middling", [True, False] * 20), ("easy", [True] * 40)):
        algorithm = drift()
        assign(algorithm, contexts, question(name, before))
        [[right, wrong]] = assign(algorithm, contexts, question(name, [True, False]))
        history = algorithm.questions[name]
        assert (history.right, history.wrong) == (0.85 * sum(before) + 1, 0.85 * (40 - sum(before)) + 1)
        h, m, e = gates(history.rate, 0.3, 0.7)
        assert right.teacher is None and right.advantages == pytest.approx([0.5 * (0.3 * h + m + 0.05 * e)] * 2)
        assert wrong.advantages is None and wrong.teacher.weight == pytest.approx([h + 0.35 * e] * 2)
        found[name] = (wrong.teacher.weight[0], right.advantages[0])
    assert found["hard"][0] > 0.8 > 0.4 > found["easy"][0] > found["middling"][0]
    assert found["middling"][1] > 0.4 > 0.2 > found["hard"][1] > found["easy"][1]


def test_a_failure_without_a_teacher_keeps_its_advantage(tokenizer):
    contexts = builder(tokenizer, feedback="never")
    [[lone, other]] = assign(drift("context.feedback=never"), contexts, question("a", [False, False]))
    assert lone.teacher is other.teacher is None and lone.advantages.tolist() == [0, 0]


def test_a_past_success_is_shown_where_no_sibling_succeeded(tokenizer):
    contexts, algorithm = builder(tokenizer, feedback="never"), drift()
    assign(algorithm, contexts, question("a", [True, False], "early"), question("b", [True, False]))
    again, mixed, new = assign(
        algorithm, contexts, question("a", [False, False], "late"), question("b", [True, False], "now"),
        question("c", [False, False]),
    )  # fmt: skip
    assert [s.teacher.hint.demonstration for s in again] == ["early 0 to a"] * 2
    assert "early 0 to a" in tokenizer.decode(again[0].teacher.prompt_ids)
    assert mixed[1].teacher.hint.demonstration == "now 0 to b"
    assert all(s.teacher is None for s in new)


def test_the_last_successes_are_kept_once_each():
    history = History()
    for word in ("a", "b", "a", "c", "d"):
        history.keep(question("q", [True, False, True], word), 3)
    assert history.successes == ["c 2 to q", "d 0 to q", "d 2 to q"]
    history.keep(question("q", [True]), 0)
    assert history.successes == []


def test_the_warm_up_is_sdpo(tokenizer):
    contexts, algorithm = builder(tokenizer, feedback="always"), drift("algorithm.warmup_batches=1")
    mixed = question("a", [True, True, False])
    sdpo = build_algorithm(load_recipe(find_recipe("livecodebench", "sdpo"), "cpu"))
    first, wanted = assign(algorithm, contexts, mixed)[0], assign(sdpo, contexts, mixed)[0]
    assert [s.teacher.hint for s in first] == [s.teacher.hint for s in wanted]
    assert all(s.advantages is None and s.teacher.weight.tolist() == [1, 1] for s in first)
    assert [s.teacher is None for s in assign(algorithm, contexts, mixed)[0]] == [True, True, False]


def test_what_it_remembers_comes_back_bit_by_bit(tokenizer):
    contexts = builder(tokenizer, feedback="always")
    batches = [[question(n, [i % 3 == 0, i % 2 == 0, False], f"é\u2028 {i}") for n in "abc"] for i in range(5)]
    whole, broken, resumed = drift(), drift(), drift()
    for i, batch in enumerate(batches):
        assign(whole, contexts, *batch, seed=i)
        if i < 3:
            assign(broken, contexts, *batch, seed=i)
    saved = TrainerState(step=3, algorithm=broken.state_dict())
    written = TypeAdapter(TrainerState).dump_json(saved)
    assign(broken, contexts, *batches[4])  # changes nothing of what was taken for a checkpoint
    assert TypeAdapter(TrainerState).dump_json(saved) == written
    resumed.load_state_dict(TypeAdapter(TrainerState).validate_json(written).algorithm)
    for i, batch in enumerate(batches[3:], start=3):
        assign(resumed, contexts, *batch, seed=i)
    assert resumed.state_dict() == whole.state_dict() and len(whole.questions) == 3
    assert any(history.right % 1 for history in whole.questions.values())
    resumed.load_state_dict({})
    assert resumed.state_dict() == {"batches": 0, "questions": {}}


def test_histories_can_be_forgotten(tokenizer):
    contexts, algorithm = builder(tokenizer, feedback="always"), drift("algorithm.reset_every=2")
    seen = []
    for _ in range(4):
        assign(algorithm, contexts, question("a", [True]))
        seen.append(algorithm.questions["a"].right)
    assert seen == pytest.approx([1, 1.85, 1, 1.85])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["algorithm.hard=0.7"], "algorithm.hard=0.7 must be below algorithm.easy=0.7"),
        (["context.demonstration=solution"], "set context.demonstration=random"),
        (["policy_gradient.aggregation=fixed-length"], "both streams under one normaliser"),
    ],
)
def test_mistakes_are_named(overrides, says):
    with pytest.raises(UserError, match=says):
        drift(*overrides)


def test_probes_ask_behind_past_successes_too(tokenizer):
    contexts, algorithm = builder(tokenizer, feedback="never"), drift()
    assign(algorithm, contexts, question("a", [True]))
    alone = question("a", [False], "late")
    told = algorithm.told(alone, 0, contexts, np.random.default_rng(0), 0)
    assert told.hint.demonstration == "answer 0 to a" and len(algorithm.questions["a"].successes) == 1
