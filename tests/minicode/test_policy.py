"""The shipped policy can do what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies.pretrain.card import SKILLS_FILE
from studies.pretrain.skills import CONDITIONS, measure_skills, rates
from tests.helpers.policies import check_complete_and_small, check_loads_with_its_tokenizer

POLICY = Path(__file__).resolve().parents[2] / "policies" / "minicode"


def test_folder_is_complete_and_small():
    check_complete_and_small(POLICY)


def test_loads_with_its_tokenizer():
    assert check_loads_with_its_tokenizer(POLICY).max_position_embeddings >= 1024


def test_card_holds_the_measured_table():
    skills = json.loads((POLICY / SKILLS_FILE).read_text())
    card = (POLICY / "README.md").read_text()
    for by in ("kind", "difficulty", "seed"):
        for name, row in skills[by].items():
            cells = [f"{row[c]:.3f}" if c in row else "–" for c in CONDITIONS]
            assert f"| {name} | {' | '.join(cells)} |" in card


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_measured_skills_are_those_of_the_card_and_good_enough():
    """Another world and other samples than the card's; the bounds are about four standard errors wide."""
    card = json.loads((POLICY / SKILLS_FILE).read_text())
    outcomes = measure_skills(POLICY, seeds=(11,), samples=2, sampling_seed=1)
    measured = rates(outcomes, "difficulty")
    stated = card["difficulty"]
    assert 0.02 <= measured["all"]["first try"] <= 0.25
    for condition, tolerance in (("with feedback", 0.15), ("with solution", 0.06), ("known words", 0.05)):
        assert measured["all"][condition] == pytest.approx(stated["all"][condition], abs=tolerance), condition
    assert measured["all"]["with feedback"] - measured["all"]["first try"] >= 0.35
    assert measured["easy"]["with feedback"] == pytest.approx(stated["easy"]["with feedback"], abs=0.2)


def test_the_card_itself_meets_what_training_needs():
    skills = json.loads((POLICY / SKILLS_FILE).read_text())
    overall = skills["difficulty"]["all"]
    assert len(skills["seeds"]) >= 3
    assert all(0.05 <= row["first try"] <= 0.25 for row in skills["seed"].values())
    assert overall["with feedback"] >= overall["first try"] + 0.40
    assert skills["difficulty"]["easy"]["with feedback"] >= 0.65
    assert overall["with solution"] >= 0.9 and overall["known words"] >= 0.95
