"""Multiple choice: SciKnowEval's rows, the published rule for what the answer is, words without the right one."""

from __future__ import annotations

import json

import pytest

from sdpo.config.files import validate
from sdpo.config.sections import ColumnSettings
from sdpo.envs import build_environment
from sdpo.envs.choice import Question, choice_task, grade_choice
from sdpo.errors import UserError
from tests.helpers.tasks import turn

ROW = {"question": "Q?", "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}, "answerKey": "B"}


def recipe(environment=None, **data):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "environment": {"kind": "choice", **(environment or {})},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "data": data or {"source": "sdpo.envs.samples:choice"},
    }
    return validate(values, "own.yaml")


async def test_the_sample_rows_and_their_references():
    environment = build_environment(recipe())
    tasks = environment.load().train
    assert len(tasks) == 8 and tasks[0].difficulty == "L1"
    assert "B: Hydrogen" in tasks[0].messages[-1]["content"]
    for task in tasks:
        assert (await environment.grade(task, turn(task.solution), "training")).solved


def published(solution: str, ground_truth: str) -> float:
    """The rule of the released code of arXiv 2601.20802 in one line."""
    return float(solution.split("<answer>")[-1].split("</answer>")[0].strip().upper() == ground_truth.strip().upper())


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("<reasoning>\nwell\n</reasoning>\n<answer>\nB\n</answer>", "right"),
        ("<answer>b</answer>", "right"),
        ("<answer>A</answer> no, <answer>B</answer>", "right"),
        ("<answer>B", "right"),
        ("B", "right"),
        ("<answer>A</answer>", "wrong option"),
        ("<answer>B: two</answer>", "no option"),
        ("<answer>two</answer>", "no option"),
        ("It is B, I think.", "no answer"),
        ("", "no answer"),
    ],
)
def test_answers_are_found_as_in_the_published_code(answer, label):
    outcome = grade_choice(Question({"A": "one", "B": "two", "C": "three"}, "B"), answer)
    assert outcome.label == label and outcome.reward == published(answer, "B")
    assert outcome.solved == (outcome.feedback is None)
    if outcome.label == "wrong option":
        assert outcome.feedback == "Your choice A is wrong."


@pytest.mark.parametrize(
    ("changed", "right"),
    [
        ({}, "B"),
        ({"answerKey": "b"}, "B"),
        ({"choices": ["one", "two"], "answerKey": "A"}, "A"),
        ({"choices": {"A": "one", "B": "two"}}, "B"),
        ({"choices": [{"label": "1", "text": "one"}, {"label": "2", "text": "two"}], "answerKey": "2"}, "2"),
        ({"answerKey": "three"}, "C"),
        ({"answerKey": 2}, "C"),
    ],
)
def test_forms_of_choices_and_keys(changed, right):
    assert choice_task(ROW | changed, ColumnSettings()).content.right == right


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answerKey": "D"}, "its answer is 'D', none of the labels A, B, C"),
        ({"answerKey": None}, "its answer is None"),
        ({"answerKey": 3}, "its answer is 3"),
        ({"choices": {"text": ["one"], "label": ["A", "B"]}}, "as many texts as labels"),
        ({"choices": {"text": ["one", "two"], "label": ["A", "A"]}}, "a label twice"),
        ({"choices": None}, "no column choices"),
        ({"question": " "}, "its question is not text"),
        ({"question": None}, "there is no column"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, changed, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, ROW | changed)))
    with pytest.raises(UserError) as error:
        build_environment(recipe(path=str(path), max_bad_rows=0)).load()
    assert "rows.jsonl, line 2: " in str(error.value) and reason in str(error.value)


def test_rows_that_are_no_questions_are_passed_over():
    kept = build_environment(recipe({"keep": {"domain": ["Physics", "Biology"], "details.level": ["L1"]}})).load()
    assert len(kept.train) == 4 and not kept.report.bad_rows
    with pytest.raises(UserError, match="holds no rows"):
        build_environment(recipe({"keep": {"details.level": ["L3"]}})).load()
