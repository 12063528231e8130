"""The export, read back as LiveCodeBench's custom evaluator reads it (lcb_runner/runner/custom_evaluator.py)."""

from __future__ import annotations

import json

import pytest

from sdpo.envs.code.lcb_export import export_generations
from sdpo.errors import UserError
from sdpo.types import Group, Outcome, Rollout
from tests.helpers.tasks import problem, turn


def answers(problem_id, codes):
    outcomes = [Outcome(1.0, True, label="accepted", details={"code": code}) for code in codes]
    return Group(problem(name=problem_id), tuple(Rollout((turn("", outcome),)) for outcome in outcomes))


def read_as_the_evaluator(path, benchmark_ids):
    """Its pairing: a list of objects, as many as problems, both sorted by id, joined by position."""
    with open(path) as file:
        outputs = json.load(file)
    assert isinstance(outputs, list) and len(outputs) == len(benchmark_ids)
    assert all(isinstance(output, dict) for output in outputs)
    lists = [output["code_list"] for output in sorted(outputs, key=lambda output: str(output["question_id"]))]
    return dict(zip(sorted(benchmark_ids), lists, strict=True))


def test_codes_reach_the_problem_they_were_written_for(tmp_path):
    # Ids sort as text: "3700" before "abc1_a", "10" before "9", capitals before small letters.
    given = {"abc1_a": ["a1", "a2"], "9": ["n1", None], "10": ["t1\n", "ü"], "3700": ["x", "y"], "ABC_b": ["B", "B"]}
    path = tmp_path / "generations.json"
    assert export_generations(path, [answers(p, codes) for p, codes in given.items()]) == 5
    read = read_as_the_evaluator(path, list(given))
    assert read == {p: [code or "" for code in codes] for p, codes in given.items()}
    stored = json.loads(path.read_text())
    assert [entry["question_id"] for entry in stored] == ["10", "3700", "9", "ABC_b", "abc1_a"]
    assert all(set(entry) == {"question_id", "code_list"} for entry in stored)
    assert list(tmp_path.iterdir()) == [path]


def test_a_repeated_problem_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="one entry per problem"):
        export_generations(tmp_path / "out.json", [answers("a", ["x"]), answers("a", ["y"])])
    assert not list(tmp_path.iterdir())
