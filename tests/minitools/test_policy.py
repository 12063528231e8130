"""The shipped policy can do what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import build_environment
from sdpo.prompts.context import ContextBuilder
from studies.pretrain.card import SKILLS_FILE
from studies.pretrain.skills import rates
from studies.pretrain.tool_skills import CONDITIONS, measure_tool_skills
from tests.helpers.policies import check_complete_and_small, check_loads_with_its_tokenizer

POLICY = Path(__file__).resolve().parents[2] / "policies" / "minitools"


def test_folder_is_complete_and_small():
    assert "world=minitools" in check_complete_and_small(POLICY)["command"]


def test_loads_with_its_tokenizer():
    check_loads_with_its_tokenizer(POLICY)


@pytest.mark.parametrize("turns", [1, 3])
def test_requests_and_calls_fit_into_the_recipes_limits(turns):
    recipe = load_recipe(find_recipe("tools", "sdpo"), "cpu", (f"environment.turns={turns}",))
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    contexts = ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)
    dataset = build_environment(recipe).load()
    for task in (*dataset.train, *dataset.evaluation):
        assert 2 * len(contexts.prompt(task)) <= recipe.context.max_prompt_tokens
        assert 2 * len(tokenizer.encode(task.solution)) <= recipe.rollout.max_response_tokens


def test_card_holds_the_measured_table():
    skills, card = json.loads((POLICY / SKILLS_FILE).read_text()), (POLICY / "README.md").read_text()
    for name, row in skills["difficulty"].items():
        assert f"| {name} | {' | '.join(f'{row[c]:.3f}' if c in row else '–' for c in CONDITIONS)} |" in card


def test_the_card_itself_meets_what_training_needs():
    """It knows no world, and can use what stands in its context."""
    skills = json.loads((POLICY / SKILLS_FILE).read_text())
    overall = skills["difficulty"]["all"]
    assert len(skills["seeds"]) >= 3 and overall["first try"] <= 0.25
    assert overall["with feedback"] >= overall["first try"] + 0.4 and overall["with feedback"] >= 0.65
    assert overall["with solution"] >= 0.9 and overall["next turn"] >= 0.65


@pytest.mark.slow
def test_measured_skills_are_those_of_the_card():
    """Another world and other samples than the card's; the bounds are about four standard errors wide."""
    stated = json.loads((POLICY / SKILLS_FILE).read_text())["difficulty"]
    measured = rates(measure_tool_skills(POLICY, seeds=(11,), samples=2, sampling_seed=1), "difficulty", CONDITIONS)
    for condition in CONDITIONS:
        assert measured["all"][condition] == pytest.approx(stated["all"][condition], abs=0.15), condition
