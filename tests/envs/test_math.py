r"""Mathematics: rows as they are published, verdicts as math-verify's, words without the right answer."""

from __future__ import annotations

import json

import pytest
from math_verify import parse, verify

from sdpo.config.files import validate
from sdpo.envs import build_environment
from sdpo.envs.boxed import last_boxed
from sdpo.envs.math_judge import judge
from sdpo.errors import UserError
from tests.helpers.tasks import turn


def recipe(**sections):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "environment": {"kind": "math", **sections.pop("environment", {})},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "data": {"source": "sdpo.envs.samples:math"},
        **sections,
    }
    return validate(values, "own.yaml")


@pytest.fixture(scope="module")
def environment():
    with build_environment(recipe()) as opened:
        yield opened


def test_rows_are_read_as_gsm8k_math_and_dapo_publish_them(environment):
    dataset = environment.load()
    right = [task.content.right for task in dataset.train]
    assert right[:4] == ["29", "180", "5000", "84"]
    assert right[4:] == ["\\frac{11}{12}", "-7, 7", "\\sqrt{3}", "(3, \\infty)", "24", "1"]
    assert [task.difficulty for task in dataset.train[4:8]] == ["1", "2", "Level 3", "Level 2"]
    first = dataset.train[0]
    assert first.solution.endswith("\\boxed{29}") and "<<" not in first.solution
    assert all("boxed" in task.messages[-1]["content"] for task in dataset.train)
    assert all(task.content.right not in task.messages[-1]["content"] for task in dataset.train[4:8])


async def test_every_reference_solution_is_right(environment):
    for task in environment.load().train:
        outcome = await environment.grade(task, turn(task.solution), "training")
        assert (outcome.reward, outcome.solved, outcome.feedback) == (1.0, True, None), task.solution


@pytest.mark.parametrize(
    ("right", "response", "label"),
    [
        ("29", "So \\boxed{29}.", "right"),
        ("29", "\\boxed{28}, no: \\boxed{29.0}", "right"),
        ("29", "\\boxed{29} or rather \\boxed{30}", "wrong answer"),
        ("29", "29", "no answer"),
        ("29", "\\boxed{29", "no answer"),
        ("29", "\\boxed{}", "unreadable"),
        ("5000", "\\boxed{5,000}", "right"),
        ("\\frac{11}{12}", "\\boxed{11/12}", "right"),
        ("\\frac{11}{12}", "\\boxed{\\dfrac{22}{24}}", "right"),
        ("\\frac{11}{12}", "\\boxed{0.9167}", "wrong answer"),
        ("-7, 7", "\\boxed{7, -7}", "right"),
        ("\\sqrt{3}", "\\boxed{\\frac{3}{\\sqrt{3}}}", "right"),
        ("(3, \\infty)", "\\boxed{[3, \\infty)}", "wrong answer"),
        ("\\text{Tuesday}", "\\boxed{\\text{Tuesday}}", "right"),
    ],
)
def test_verdicts(right, response, label):
    assert judge(right, response)["label"] == label


# Pairs of the library's own documentation and tests, and of its README, with what it says of them.
PAIRS = [
    ("${1,2,3,4}$", "${1,3} \\cup {2,4}$"), ("$\\frac{1}{2}$", "$0.5$"), ("$x^2+2x+1$", "$(x+1)^2$"),
    ("$\\{1,2\\}$", "$\\{2,1\\}$"), ("$(1,2)$", "$(2,1)$"), ("$10\\%$", "$0.1$"), ("$1/3$", "$0.333333$"),
    ("$\\begin{pmatrix}1\\\\2\\end{pmatrix}$", "$\\begin{pmatrix}1\\\\2\\end{pmatrix}$"),
    ("$\\sqrt{8}$", "$2\\sqrt{2}$"),
    ("$x=3$", "$3$"), ("$3$", "$x=3$"), ("$\\pi$", "$3.14$"), ("$2^{10}$", "$1024$"), ("$1 < x < 2$", "$(1,2)$"),
    ("$a+b$", "$b+a$"), ("$\\frac{a}{b}$", "$\\frac{b}{a}$"), ("$\\log_2 8$", "$3$"), ("$0$", "$\\sin \\pi$"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "given"), PAIRS)
def test_it_agrees_with_math_verify(gold, given):
    theirs = verify(parse(gold, parsing_timeout=None), parse(given, parsing_timeout=None), timeout_seconds=None)
    ours = judge(gold.strip("$"), f"\\boxed{{{given.strip('$')}}}")["label"]
    assert (ours == "right") == theirs


async def test_words_never_hold_the_right_answer(environment):
    task = environment.load().train[0]
    for answer, words in [
        ("\\boxed{30}", "Your answer 30 is wrong."),
        ("I think so", "There is no final answer"),
        ("\\boxed{\\alpha}", "Your answer \\alpha is wrong."),
    ]:
        outcome = await environment.grade(task, turn(answer), "training")
        assert outcome.reward == 0.0 and outcome.feedback.startswith(words) and "29" not in outcome.feedback
    cut = await environment.grade(task, turn("hm", finish_reason="length"), "training")
    assert "cut off" in cut.feedback


@pytest.mark.slow
async def test_a_comparison_without_an_end_costs_the_reward_and_no_more():
    task = build_environment(recipe()).load().train[0]
    with build_environment(recipe(environment={"time_limit_s": 1.0})) as impatient:
        outcome = await impatient.grade(task, turn("\\boxed{9^{9^{9^{9}}}}"), "training")
    assert (outcome.reward, outcome.label) == (0.0, "too slow")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "2+2?"}, "its answer is missing"),
        ({"question": "2+2?", "answer": ""}, "its answer is empty"),
        ({"question": "2+2?", "answer": "four\n####"}, "its answer is empty"),
        ({"question": "", "answer": "4"}, "its prompt is empty"),
        ({"problem": "2+2?", "solution": "It is 4."}, "no \\boxed{} in its solution"),
        ({"answer": "4"}, "there is no column prompt or messages or question"),
        ({"question": "2+2?", "answer": [4]}, "its answer is a list, not a text"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, row, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ({"question": "1+1?", "answer": "2"}, row)))
    with pytest.raises(UserError) as error:
        build_environment(recipe(data={"path": str(path), "max_bad_rows": 0})).load()
    assert "rows.jsonl, line 2: " in str(error.value) and reason in str(error.value)


def test_boxes_are_found_with_their_braces_balanced():
    assert last_boxed("\\boxed{1} \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert last_boxed("\\fbox{3}") == "3"
    assert last_boxed("\\boxed{\\{1,2\\}}") == "\\{1,2\\}"
    assert last_boxed("\\boxed{1") is None and last_boxed("none") is None
