"""The evaluation loop: order, counts, concurrency, errors; and once through the real sandbox."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from sandbox import Judgement, Sandbox, TestCase, Verdict, extract_code
from sdpo.errors import UserError
from sdpo.evaluation import evaluate, export_generations
from sdpo.types import Problem, Rollout


def problem(name, difficulty="easy"):
    tests = (TestCase("1 2\n", "3"), TestCase("5 5\n", "10"))
    return Problem(name, "Print the sum.", training_tests=tests[:1], evaluation_tests=tests, difficulty=difficulty)


def rollout(text, tokens=3, finish="stop", version=7):
    return Rollout((1,), tuple(range(tokens)), text, np.zeros(tokens, np.float32), finish, version)


def fenced(code):
    return f"I add them.\n```python\n{code}\n```\n"


RIGHT = fenced("print(sum(map(int, input().split())))")
WRONG = fenced("print(3)")  # passes the first test only
BROKEN = fenced("print(sum(")


def answering(texts):
    """A policy that answers problem `p` with `texts[p]`, later problems sooner."""

    async def generate(problem, n):
        await asyncio.sleep(0.002 * (len(texts) - list(texts).index(problem.id)))
        return [rollout(text) for text in texts[problem.id][:n]]

    return generate


async def by_text(problem, code):
    """A judge for tests of the loop alone: a program is right if it says so."""
    if code is None:
        return Judgement(Verdict.NO_CODE)
    return Judgement(Verdict.ACCEPTED if "right" in code else Verdict.WRONG_ANSWER)


async def test_through_the_real_sandbox(tmp_path):
    texts = {"p2": [RIGHT, WRONG, BROKEN, "no program"], "p10": [RIGHT, RIGHT, WRONG, RIGHT]}
    problems = [problem("p2"), problem("p10", "hard")]
    with Sandbox(workers=2) as sandbox:

        async def judge(problem, code):
            return await sandbox.ajudge(code, problem.evaluation_tests, problem.limits, problem.files)

        evaluation = await evaluate(problems, answering(texts), judge, n=4, ks=(1, 2), test_split="published")
    first, second = evaluation.result.problems
    assert (first.id, first.n, first.c, second.id, second.n, second.c) == ("p2", 4, 1, "p10", 4, 3)
    assert first.verdicts == {"accepted": 1, "wrong answer": 1, "compile error": 1, "no code": 1}
    assert evaluation.result.pass_at_k[1].value == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert evaluation.result.pass_at_k[2].value == pytest.approx((1 / 2 + 1) / 2)
    assert evaluation.result.test_split == "published"
    assert evaluation.answers[0].judgements[1].tests[0].verdict is Verdict.ACCEPTED, "all tests have to pass, not some"

    assert export_generations(tmp_path / "out.json", evaluation.answers) == 2
    exported = json.loads((tmp_path / "out.json").read_text())
    assert [entry["question_id"] for entry in exported] == ["p10", "p2"]
    assert exported[1]["code_list"][3] == ""


async def test_results_keep_the_order_of_problems_and_samples():
    texts = {f"p{k}": [fenced(f"{k} {j} {'right' if j < k else ''}") for j in range(3)] for k in range(4)}
    evaluation = await evaluate([problem(p) for p in texts], answering(texts), by_text, n=3)
    assert [p.id for p in evaluation.result.problems] == list(texts)
    assert [p.c for p in evaluation.result.problems] == [0, 1, 2, 3]
    for answers in evaluation.answers:
        assert [r.text for r in answers.rollouts] == texts[answers.problem.id]
        assert [j.passed for j in answers.judgements] == ["right" in code for code in answers.codes]


async def test_a_draft_in_a_thought_counts_by_the_rule_that_the_result_names(tmp_path):
    """LiveCodeBench's own rule, the default, looks into thoughts; `evaluation.thinking=ignored` does not."""
    texts = {"a": [f"<think>{fenced('right')}", f"<think>{fenced('wrong')}</think>{fenced('right')}"]}
    official = (await evaluate([problem("a")], answering(texts), by_text, n=2)).result
    rule = {"extract": lambda rollout: extract_code(rollout.text), "thinking": "ignored"}
    ignored = (await evaluate([problem("a")], answering(texts), by_text, n=2, **rule)).result
    assert [(r.thinking, r.problems[0].c) for r in (official, ignored)] == [("official", 2), ("ignored", 1)]
    ignored.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["thinking"] == "ignored"


async def test_greedy_is_one_sample():
    evaluation = await evaluate(
        [problem("a")], answering({"a": [fenced("right")]}), by_text, n=1, sampling={"temperature": 0}
    )
    assert evaluation.result.pass_at_k[1].value == 1
    assert evaluation.result.sampling == {"temperature": 0}


async def test_lengths_truncation_and_policy_version():
    async def generate(problem, n):
        return [rollout("x", tokens=2), rollout("x", tokens=6, finish="length", version=8 if problem.id == "b" else 7)]

    one = (await evaluate([problem("a")], generate, by_text, n=2)).result
    assert (one.problems[0].response_tokens, one.problems[0].truncated, one.policy_version) == (4, 1, 7)
    both = (await evaluate([problem("a"), problem("b")], generate, by_text, n=2)).result
    assert both.policy_version is None, "the weights changed in between"


async def test_progress_counts_every_sample():
    steps = []
    texts = {f"p{k}": [fenced("right"), fenced("")] for k in range(3)}
    await evaluate(
        [problem(p) for p in texts], answering(texts), by_text, n=2, progress=lambda *step: steps.append(step)
    )
    assert [s[0] for s in steps] == list(range(1, 7))
    assert {s[1] for s in steps} == {6}
    assert steps[-1] == (6, 6, 3)


async def test_no_more_problems_in_flight_than_asked():
    running, most = 0, 0

    async def generate(problem, n):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return [rollout("x")]

    await evaluate([problem(f"p{k}") for k in range(12)], generate, by_text, n=1, concurrency=3)
    assert most == 3


@pytest.mark.parametrize("where", ["generate", "judge"])
async def test_an_error_is_raised_as_itself_and_ends_the_rest(where):
    ended = []

    async def wait_forever(name):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def generate(problem, n):
        if where == "generate":
            if problem.id == "bad":
                await asyncio.sleep(0.005)
                raise UserError("the engine is gone")
            await wait_forever(problem.id)
        return [rollout("x")]

    async def judge(problem, code):
        if problem.id == "bad":
            await asyncio.sleep(0.005)
            raise UserError("the engine is gone")
        await wait_forever(problem.id)

    with pytest.raises(UserError, match="^the engine is gone$"):
        await asyncio.wait_for(evaluate([problem("a"), problem("bad"), problem("c")], generate, judge, n=1), 5)
    assert sorted(ended) == ["a", "c"]


async def test_cancelling_ends_everything():
    ended = []

    async def generate(problem, n):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(problem.id)

    task = asyncio.create_task(evaluate([problem("a"), problem("b")], generate, by_text, n=1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == ["a", "b"]


@pytest.mark.parametrize(("n", "ks"), [(1, (2,)), (4, (1, 8)), (0, (1,)), (4, ()), (4, (0,))])
async def test_k_has_to_fit_n(n, ks):
    with pytest.raises(UserError, match="1 ≤ k ≤ n"):
        await evaluate([problem("a")], answering({"a": []}), by_text, n=n, ks=ks)


async def test_nothing_to_evaluate_and_too_few_rollouts():
    with pytest.raises(UserError, match="no problem"):
        await evaluate([], answering({}), by_text, n=1)
    with pytest.raises(ValueError, match="2 rollouts for a, not 3"):
        await evaluate([problem("a")], answering({"a": ["x", "y"]}), by_text, n=3)


def _failing_sandbox(failures):
    """A judge whose sandbox fails as often on a program as `failures` says."""
    left = dict(failures)

    async def judge(problem, code):
        for text in left:
            if text in code and left[text]:
                left[text] -= 1
                return Judgement(Verdict.SANDBOX_ERROR, message="the fork server died")
        return await by_text(problem, code)

    return judge


async def test_a_broken_sandbox_is_asked_again():
    texts = {"p": [fenced("one right"), fenced("two")]}
    evaluation = await evaluate([problem("p")], answering(texts), _failing_sandbox({"one": 1, "two": 2}), n=2)
    assert (evaluation.result.problems[0].n, evaluation.result.problems[0].c) == (2, 1)
    assert evaluation.result.unjudged == 0 and evaluation.result.warning is None


async def test_what_a_broken_sandbox_did_not_judge_is_left_out_not_wrong():
    texts = {"p": [fenced("one right"), fenced("two right"), fenced("three")], "q": [fenced("four right")] * 3}
    judge = _failing_sandbox({"two": 99, "four": 99})
    result = (await evaluate([problem("p"), problem("q")], answering(texts), judge, n=3)).result
    assert [(p.id, p.n, p.c) for p in result.problems] == [("p", 2, 1)]
    assert result.pass_at_k[1].value == 0.5 and result.unjudged == 4
    assert "4 of 6 samples" in result.warning and result.metrics()["unjudged"] == 4
    with pytest.raises(UserError, match="every problem"):
        await evaluate([problem("q")], answering(texts), _failing_sandbox({"four": 99}), n=3)
