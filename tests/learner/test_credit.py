"""What is recorded of every token, from the learner to the table, against plain transformers in float64."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpo.learner.credit import ALTERNATIVES
from sdpo.tracking import rollout_rows
from sdpo.tracking.rollouts import read_rollouts, write_rollouts
from sdpo.tracking.tokens import BYTES_PER_TOKEN, TOKEN_SCHEMA
from sdpo.training.recording import credit_of, with_recorded
from sdpo.types import Group, Rollout
from tests.helpers.tasks import RIGHT, problem, turn
from tests.learner.tiny import InProcess, recipe, reference_log_probs, samples

TEMPERATURE = 0.8
FROZEN = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null")
CASES = {
    "all of the vocabulary": ("sdpo",),
    "top 20 and a tail": ("sdpo", "distillation.top_k=20"),
    "the teacher's top 20": ("sdpo", "distillation.top_k=20", "distillation.support=teacher"),
    "credit by token": ("sdpo", "distillation.level=token", "distillation.alpha=1"),
    "another temperature of the two": ("sdpo", *FROZEN),
    "ZeRO 3": ("sdpo", "learner.zero_stage=3"),
    "no teacher": ("grpo",),
}


def near(found, wanted):
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted.detach().numpy(), atol=1e-5, rtol=0)


def entropies(log_probs: torch.Tensor) -> torch.Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)


def group_of(batch) -> Group:
    turns = [turn("text", RIGHT, prompt_ids=s.prompt_ids, response_ids=s.response_ids) for s in batch]
    return Group(problem(), tuple(Rollout((each,)) for each in turns))


def spelled(ids) -> str:
    return "".join(f"<{token}>" for token in ids)


def trained(model, start, options, batches, recorded=True):
    settings = recipe(model, *options, f"rollout.temperature={TEMPERATURE}", "learner.micro_batch_tokens=60")
    learner = InProcess(settings, start(settings))
    given = [[replace(s, recorded=recorded) for s in batch] for batch in batches]
    asyncio.run(learner.train(given))
    return learner, given


@pytest.mark.parametrize("case", CASES)
def test_the_tables_numbers_are_those_of_plain_transformers(model, start, tmp_path, case):
    double = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    options = CASES[case]
    learner, given = trained(model, start, options, [samples(9, seed=i) for i in range(4)])
    write_rollouts(tmp_path, 1, rollout_rows([group_of(g) for g in given], given, spelled, learner.credit))
    rows = read_rollouts(tmp_path, 1)
    batch = [s for own in given for s in own]
    assert len(rows) == len(batch) and {type(row["token_ids"]) for row in rows} == {list}
    for row, s in zip(rows, batch, strict=True):
        own = reference_log_probs(double, s, TEMPERATURE)
        chosen = torch.tensor(s.response_ids)[:, None]
        assert row["token_ids"] == list(s.response_ids) and "".join(row["tokens"]) == spelled(s.response_ids)
        near(row["sampler_log_probs"], torch.from_numpy(s.sampler_log_probs))
        near(row["log_probs"], own.gather(1, chosen)[:, 0])
        near(row["entropy"], entropies(own))
        judge = own
        taught = s.teacher is not None and options[0] != "grpo"
        if taught:
            judge = reference_log_probs(double, s, TEMPERATURE, s.teacher.prompt_ids)
            near(row["teacher_log_probs"], judge.gather(1, chosen)[:, 0])
            near(row["teacher_entropy"], entropies(judge))
        else:
            assert row["teacher_log_probs"] is row["teacher_entropy"] is row["top_teacher_log_probs"] is None
        top = torch.tensor(row["top_ids"])
        assert top.shape == (len(s.response_ids), ALTERNATIVES)
        assert row["top_tokens"] == [[f"<{i}>" for i in each] for each in row["top_ids"]]
        near(judge.gather(1, top).detach().numpy(), judge.topk(ALTERNATIVES).values)  # the likeliest, in order
        near(row["top_log_probs"], own.gather(1, top))
        if taught:
            near(row["top_teacher_log_probs"], judge.gather(1, top))


def test_of_several_updates_each_records_the_policy_that_it_trains(model, start):
    settings = recipe(model, "sdpo", *FROZEN, "learner.updates_per_batch=2", "learner.lr=1e-2")
    worker = start(settings)
    learner, states = InProcess(settings, worker), []

    def note():
        states.append({n: t.clone() for n, t in worker.student.model.state_dict().items()})

    note()
    given = [[replace(s, recorded=True) for s in samples(6, seed=i)] for i in range(2)]
    asyncio.run(learner.train(given, note))
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    distances = []
    for state, batch, credit in zip(states, given, learner.credit, strict=False):
        policy.load_state_dict({n: t.double() for n, t in state.items()})
        for s, found in zip(batch, credit, strict=True):
            near(found.log_probs, reference_log_probs(policy, s).gather(1, torch.tensor(s.response_ids)[:, None])[:, 0])
    for before, after in pairwise(states):
        distances.append(max(float((after[n] - before[n]).abs().max()) for n in before))
    assert min(distances) > 1e-3  # else one policy would do for all


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
def test_recording_changes_no_weight(model, start, algorithm):
    batches = [samples(9, seed=i) for i in range(4)]
    options = (algorithm, "learner.updates_per_batch=2", "learner.lr=1e-3")
    (one, _), (other, _) = (trained(model, start, options, batches, recorded) for recorded in (True, False))
    assert {c is None for own in one.credit for c in own} == {False}
    assert {c is None for own in other.credit for c in own} == {True}
    weights = [learner.ranks[0].rank.worker.student.model.state_dict() for learner in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def drawn(task: str, *lengths: int):
    group = Group(problem(name=task), tuple(Rollout((turn("x", RIGHT, response_ids=(1,) * n),)) for n in lengths))
    return group, [s for n in lengths for s in [replace(samples(1)[0], response_ids=(1,) * n)]]


def recorded(draws, tokens: int, seed: int = 0) -> dict[str, list[bool]]:
    groups, given = zip(*draws, strict=True)
    marked = with_recorded(groups, given, seed, tokens * BYTES_PER_TOKEN / 1e6)
    return {g.task.id: [s.recorded for s in own] for g, own in zip(groups, marked, strict=True)}


def test_whole_groups_are_recorded_within_the_budget_and_the_same_tasks_in_every_step():
    draws = [drawn(f"task {i}", 5, 5) for i in range(20)]
    found = recorded(draws, 59)
    assert sorted(map(tuple, found.values())) == [(False, False)] * 15 + [(True, True)] * 5
    assert found == recorded(draws[::-1], 59) and found != recorded(draws, 59, seed=1)
    kept = next(task for task, marks in found.items() if all(marks))
    assert recorded([d for d in draws[:10] if d[0].task.id != kept] + [drawn(kept, 5, 5)], 59)[kept] == [True, True]


def test_a_group_that_no_budget_holds_is_recorded_in_part_and_a_budget_of_zero_is_none():
    draws = [drawn("long", 40, 40, 40)]
    assert recorded(draws, 100) == {"long": [True, True, False]}
    assert recorded(draws, 0) == {"long": [False, False, False]}


def test_responses_that_are_left_out_of_training_have_no_credit(model, start):
    learner, given = trained(model, start, ("sdpo",), [samples(3, seed=i) for i in range(4)])
    everything = [[*own[:1], samples(1)[0], *own[1:]] for own in given]
    credit = credit_of(everything, given, learner.credit)
    assert [[c is None for c in own] for own in credit] == [[False, True, False, False]] * 4
    assert credit[2][3] is learner.credit[2][2]


def test_a_table_has_these_columns_whether_or_not_a_response_was_recorded(tmp_path, model, start):
    learner, [first, *_] = trained(model, start, ("sdpo",), [samples(3, seed=i) for i in range(4)])
    groups, credit = [group_of(first)], [[learner.credit[0][0], None, None]]
    without = pq.read_schema(write_rollouts(tmp_path, 1, rollout_rows(groups, [first], spelled)))
    path = write_rollouts(tmp_path, 2, rollout_rows(groups, [first], spelled, credit))
    assert without == pq.read_schema(path)
    assert [pq.read_schema(path).field(f.name).type for f in TOKEN_SCHEMA] == [f.type for f in TOKEN_SCHEMA]
    assert [row["token_ids"] is None for row in read_rollouts(tmp_path, 2)] == [False, True, True]
