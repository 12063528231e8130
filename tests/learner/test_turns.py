"""Rollouts of several turns in the learner: one sequence each, whose observations are attended to and carry no loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from sdpo.algorithms import build_algorithm
from sdpo.algorithms.base import LossPlan
from sdpo.config.streams import DistillationSettings, PolicyGradientSettings
from sdpo.learner.packing import conversations, pack
from sdpo.learner.rows import loss_weighted_rows, split
from sdpo.learner.sums import token_sums
from sdpo.types import Sample, TeacherContext
from tests.learner.tiny import VOCABULARY, dealt, loss_and_gradient, recipe, reference_log_probs

CPU = torch.device("cpu")
EVERY_STREAM = ("sdpo", "environment.turns=3", "algorithm.mix=0.5", "reference={coefficient: 0.1}")
SAME = ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null")


def rollout(rng: np.random.Generator, question: tuple[int, ...], turns: int = 3, same: bool = False) -> list[Sample]:
    """Responses of 3 to 9 tokens, 4 to 8 observed ones between them; a teacher is told 5 tokens more, or nothing."""

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, VOCABULARY, rng.integers(low, high + 1)).tolist())

    made, prompt = [], question
    for number in range(1, turns + 1):
        response = tokens(3, 9)
        length = len(response)
        told = prompt if same else (*prompt, *tokens(5, 5))
        made.append(
            Sample(
                prompt,
                response,
                rng.normal(-4.5, 0.3, length).astype(np.float32),
                advantages=np.full(length, rng.normal(), np.float32),
                teacher=TeacherContext(told, np.ones(length, np.float32)),
                reference_weight=np.ones(length, np.float32),
                turn=number,
            )
        )
        prompt = (*prompt, *response, *tokens(4, 8))
    return made


def batch(rollouts: int = 4, same: bool = False) -> list[Sample]:
    """Rollouts of 1 to 3 turns, two to a question."""
    rng, made = np.random.default_rng(3), []
    for i in range(rollouts):
        if i % 2 == 0:
            question = tuple(rng.integers(0, VOCABULARY, 12).tolist())
        made += rollout(rng, question, 3 - i % 3, same)
    return made


def arrays(samples: list[Sample]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [np.array(s.prompt_ids) for s in samples], [np.array(s.response_ids) for s in samples]


def rows_of(samples: list[Sample], *overrides: str, model):
    chosen = recipe(model, *overrides)
    return loss_weighted_rows(samples, build_algorithm(chosen).plan, chosen.rollout.max_response_tokens)


def test_log_probs_turn_by_turn_are_those_of_one_sequence(model, start):
    worker = start(recipe(model, "grpo", "environment.turns=3"))
    samples = rollout(np.random.default_rng(0), tuple(range(20)))
    rows = rows_of(samples, "grpo", "environment.turns=3", model=model)
    [one] = worker.passes.log_probs([rows])
    by_turn = [values for [values] in worker.passes.log_probs([[row] for row in rows])]
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    for sample, together, alone in zip(samples, one, by_turn, strict=True):
        assert together.dtype == np.float32
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
        wanted = reference_log_probs(plain, sample).gather(1, torch.tensor(sample.response_ids)[:, None])[:, 0]
        np.testing.assert_allclose(together, wanted.detach().numpy(), atol=2e-5)


def test_a_rollout_is_computed_once(model, start):
    """Tokens that go through the model: those of the conversation, but for its last one."""
    chosen = recipe(model, "grpo", "environment.turns=3")
    worker, samples = start(chosen), rollout(np.random.default_rng(0), tuple(range(20)))
    seen = []
    embedding = worker.student.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, given, output: seen.append(given[0].numel()))
    [micro_batches] = dealt(chosen, samples)
    loss_and_gradient(worker, micro_batches)
    conversation = len(samples[-1].prompt_ids) + len(samples[-1].response_ids)
    assert sum(seen) == conversation - 1 <= 1.3 * conversation


def test_turns_that_rollouts_have_in_common_are_computed_once():
    """A first turn that two rollouts of a group said alike, and what was replied to it."""
    rng = np.random.default_rng(0)
    one = rollout(rng, tuple(range(20)))
    other = [one[0], *rollout(rng, one[1].prompt_ids, 2)]
    samples = [*one, *other]
    made = pack(*arrays(samples), CPU)
    whole = [len(turns[-1].prompt_ids) + len(turns[-1].response_ids) - 1 for turns in (one, other)]
    assert made.input_ids.shape[1] == sum(whole) - len(one[1].prompt_ids)
    tokens = made.input_ids[0][made.predicts].split([len(s.response_ids) for s in samples])
    for sample, found in zip(samples, tokens, strict=True):  # each response stands behind its prompt's last token
        assert found.tolist() == [sample.prompt_ids[-1], *sample.response_ids[:-1]]


@pytest.mark.parametrize("stream", ["policy_gradient_weight", "distillation_weight", "reference_weight"])
def test_no_stream_has_a_gradient_on_what_was_observed(model, start, stream):
    chosen = recipe(model, *EVERY_STREAM)
    worker, samples = start(chosen), batch()
    rows = rows_of(samples, *EVERY_STREAM, model=model)
    streams = ("policy_gradient_weight", "distillation_weight", "reference_weight")
    rows = [
        replace(row, **{name: np.zeros_like(getattr(row, name)) for name in streams if name != stream}) for row in rows
    ]
    states = []

    def remember(module, given, output):  # the last norm's: on what a position's own prediction depends, and no other
        if output.requires_grad:
            output.retain_grad()
            states.append(output)

    worker.student.model.base_model.norm.register_forward_hook(remember)
    with torch.no_grad():
        for parameter in worker.student.parameters():
            parameter.mul_(1.1)  # away from the reference
    loss, _ = worker.passes.loss(rows)
    worker.engine.backward(loss)
    [gradient] = [state.grad for state in states]
    made = pack(*arrays(samples), CPU)
    predicting = torch.zeros(made.input_ids.shape[1], dtype=torch.bool)
    predicting[made.predicts] = True
    assert 0 < predicting.sum() < len(predicting) - 12
    assert (gradient[0][~predicting] == 0).all()
    assert (gradient[0][predicting].abs().sum(-1) > 0).all()


def test_nothing_is_lost_when_the_teacher_sees_what_the_student_sees(model, start):
    options = ("sdpo", "environment.turns=3", *SAME)
    worker = start(recipe(model, *options))
    rows = rows_of(batch(same=True), *options, model=model)
    loss, gradient = loss_and_gradient(worker, [rows])
    assert abs(loss) < 1e-6
    assert max(float(g.abs().max()) for g in gradient.values()) < 1e-5
    other, _ = loss_and_gradient(worker, [rows_of(batch(), *options, model=model)])
    assert other > 1e-3


def test_loss_and_gradient_are_those_of_turns_computed_one_by_one(model, start):
    worker = start(recipe(model, *EVERY_STREAM))
    rows = rows_of(batch(), *EVERY_STREAM, model=model)
    together, gradients = loss_and_gradient(worker, [rows])
    alone, wanted = loss_and_gradient(worker, [[row] for row in rows])
    assert together == pytest.approx(alone, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=3e-5 * float(wanted[name].abs().max()))


def test_the_gap_between_teacher_and_student_is_told_by_turn(model, start):
    options = ("sdpo", "environment.turns=3")
    worker, rows = start(recipe(model, *options)), rows_of(batch(), *options, model=model)
    loss, outputs = worker.passes.loss(rows)
    metrics = token_sums(rows, loss, outputs, by_turn=True).means()
    tokens = [sum(len(row.response_ids) for row in rows if row.turn == turn) for turn in (1, 2, 3)]
    for name in ("distillation/loss", "distillation/teacher_gain"):
        by_turn = [metrics[f"{name}/turn_{turn}"] for turn in (1, 2, 3)]
        assert np.average(by_turn, weights=tokens) == pytest.approx(metrics[name], rel=1e-5)
    assert not any("turn_" in name for name in token_sums(rows, loss, outputs).means())


def test_a_turn_s_tokens_count_as_a_response_s():
    samples = batch()
    total = sum(len(s.response_ids) for s in samples)
    rows = loss_weighted_rows(samples, LossPlan(PolicyGradientSettings(), DistillationSettings()), 8)
    for name in ("policy_gradient_weight", "distillation_weight"):
        assert all(getattr(row, name) == pytest.approx(1 / total) for row in rows)
    by_turn = PolicyGradientSettings(aggregation="seq-mean-token-mean")
    for row in loss_weighted_rows(samples, LossPlan(by_turn), 8):
        assert row.policy_gradient_weight == pytest.approx(1 / len(row.response_ids) / len(samples))


@pytest.mark.parametrize("ranks, limit", [(1, 10_000), (2, 60), (3, 1)])
def test_a_conversation_is_not_torn_apart(ranks, limit):
    samples = batch(9)
    rows = loss_weighted_rows(samples, LossPlan(PolicyGradientSettings()), 8)
    talks = {frozenset(talk) for talk in conversations(*arrays(samples))}
    assert sorted(len(talk) for talk in talks) == [1] * 3 + [2] * 3 + [3] * 3
    dealt_out = [set(micro) for share in split(rows, ranks, limit) for micro in share if micro]
    assert sorted(i for micro in dealt_out for i in micro) == list(range(len(rows)))
    for micro in dealt_out:
        held = [talk for talk in talks if talk & micro]
        assert micro == set().union(*held)
        made = pack(*arrays([samples[i] for i in sorted(micro)]), CPU)
        assert len(held) == 1 or made.input_ids.shape[1] <= limit


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=6), min_size=1, max_size=12), st.data())
def test_a_pack_holds_every_turn_with_all_before_it(sequences, data):
    """Sequences of two tokens, so that they often begin alike: each response stands behind its own prompt."""
    cuts = [data.draw(st.integers(1, len(s) - 1)) for s in sequences]
    prompts = [np.array(s[:cut]) for s, cut in zip(sequences, cuts, strict=True)]
    responses = [np.array(s[cut:]) for s, cut in zip(sequences, cuts, strict=True)]
    talks = conversations(prompts, responses)
    assert sorted(i for talk in talks for i in talk) == list(range(len(sequences)))
    assert [min(talk) for talk in talks] == sorted(min(talk) for talk in talks)  # as they came
    last = {i: talk[-1] for talk in talks for i in talk}
    for i, sequence in enumerate(sequences):
        goes_on = [j for j, p in enumerate(prompts) if p[: len(sequence)].tolist() == sequence]
        assert (
            (last[i] == i) == (not goes_on) and prompts[last[i]][: len(sequence)].tolist() == sequence or last[i] == i
        )
    made = pack(prompts, responses, CPU)
    ids, positions = made.input_ids[0].tolist(), made.position_ids[0].tolist()
    groups, start = [], 0  # of each place, the places that it sees
    for group in made.groups:
        shared = list(range(start, start + group.shared))
        groups += [shared[: k + 1] for k in range(group.shared)]
        start += group.shared
        for own in group.own:
            groups += [[*shared, *range(start, start + k + 1)] for k in range(own)]
            start += own
    places = iter(made.predicts.tolist())
    for prompt, response in zip(prompts, responses, strict=True):
        for k in range(len(response)):
            place = next(places)
            assert [ids[seen] for seen in groups[place]] == [*prompt, *response[:k]]
            assert positions[place] == len(prompt) + k - 1
