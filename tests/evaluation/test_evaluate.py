"""The evaluation loop: order, counts, concurrency, errors; and once through the real sandbox."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from sandbox import TestCase
from sdpo.cli.evaluate import write_responses
from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import Dataset, Environment, build_environment
from sdpo.envs.code import Problem
from sdpo.envs.code.lcb_export import export_generations
from sdpo.errors import UserError
from sdpo.evaluation import count
from sdpo.prompts.context import ContextBuilder
from sdpo.rollout.generation import Generation
from sdpo.training import evaluate as module
from sdpo.training.evaluate import evaluate
from sdpo.types import Outcome, Task
from tests.helpers.policy import ScriptedPolicy
from tests.helpers.tasks import group


def recipe_of(*overrides: str):
    """Published prompts, as the byte tokenizer has no few hundred words."""
    common = ("context.template=published", "context.max_prompt_tokens=2048", "rollout.max_response_tokens=2048")
    return load_recipe(find_recipe("livecodebench", "grpo"), "cpu", (*common, *overrides))


def problem(name, difficulty="easy"):
    tests = (TestCase("1 2\n", "3"), TestCase("5 5\n", "10"))
    statement = f"Print the sum. [{name}]"
    return Problem(name, statement, training_tests=tests[:1], evaluation_tests=tests, difficulty=difficulty).task()


def name_in(prompt):
    return prompt.split("[")[1].split("]")[0]


def fenced(code):
    return f"I add them.\n```python\n{code}\n```\n"


RIGHT = fenced("print(sum(map(int, input().split())))")
WRONG = fenced("print(3)")  # passes the first test only
BROKEN = fenced("print(sum(")


def answering(texts):
    """A policy that answers problem `p` with `texts[p]`, later problems sooner."""

    async def answer(prompt, i):
        name = name_in(prompt)
        await asyncio.sleep(0.002 * (len(texts) - list(texts).index(name)))
        return texts[name][i]

    return answer


class ByText(Environment):
    """For tests of the loop alone: an answer is right if it says so."""

    def load(self, progress=None):
        raise NotImplementedError

    async def grade(self, task, turn, purpose):
        assert purpose == "evaluation"
        right = "right" in turn.text
        return Outcome(float(right), right, label="right" if right else "wrong")


def generation(tokenizer, answer, *overrides, environment=None, **policy):
    recipe = recipe_of(*overrides)
    environment = environment or ByText(recipe)
    contexts = ContextBuilder(tokenizer, recipe.context)
    return Generation(recipe, environment, contexts, tokenizer, ScriptedPolicy(tokenizer, answer, **policy))


def samples(n, *ks):
    return f"evaluation.samples={n}", f"evaluation.ks={list(ks or (1,))}"


def dataset(tasks):
    return Dataset([], list(tasks), "made up", "published")


async def run(made, tasks, **options):
    return await evaluate(made, tasks, dataset(tasks), **options)


async def test_through_the_real_sandbox(tmp_path, tokenizer):
    texts = {"p2": [RIGHT, WRONG, BROKEN, "no program"], "p10": [RIGHT, RIGHT, WRONG, RIGHT]}
    tasks = [problem("p2"), problem("p10", "hard")]
    settings = samples(4, 1, 2)
    with build_environment(recipe_of("sandbox.workers=2")) as environment:
        made = generation(tokenizer, answering(texts), *settings, environment=environment)
        evaluation = await run(made, tasks)
    first, second = evaluation.result.problems
    assert (first.id, first.n, first.c, second.id, second.n, second.c) == ("p2", 4, 1, "p10", 4, 3)
    assert first.verdicts == {"accepted": 1, "wrong answer": 1, "compile error": 1, "no code": 1}
    assert evaluation.result.pass_at_k[1].value == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert evaluation.result.pass_at_k[2].value == pytest.approx((1 / 2 + 1) / 2)
    assert evaluation.result.test_split == "published"
    told = evaluation.groups[0].rollouts[1].outcome.feedback
    assert "10" in told and not evaluation.groups[0].rollouts[1].solved, "all tests have to pass, not some"

    assert export_generations(tmp_path / "out.json", evaluation.groups) == 2
    exported = json.loads((tmp_path / "out.json").read_text())
    assert [entry["question_id"] for entry in exported] == ["p10", "p2"]
    assert exported[0]["code_list"][0] == "print(sum(map(int, input().split())))"
    assert exported[1]["code_list"][3] == ""

    write_responses(tmp_path / "responses.jsonl", evaluation.groups)
    lines = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["p2"] * 4 + ["p10"] * 4
    (turn,) = lines[1]["turns"]
    assert (turn["response"], turn["reward"], turn["solved"], turn["feedback"]) == (WRONG, 0.0, False, told)


async def test_results_keep_the_order_of_problems_and_samples(tokenizer):
    texts = {f"p{k}": [fenced(f"{k} {j} {'right' if j < k else ''}") for j in range(3)] for k in range(4)}
    evaluation = await run(generation(tokenizer, answering(texts), *samples(3)), [problem(p) for p in texts])
    assert [p.id for p in evaluation.result.problems] == list(texts)
    assert [p.c for p in evaluation.result.problems] == [0, 1, 2, 3]
    for answers in evaluation.groups:
        assert [r.last.text for r in answers.rollouts] == texts[answers.task.id]
        assert [r.solved for r in answers.rollouts] == ["right" in r.last.text for r in answers.rollouts]


async def test_greedy_is_one_sample(tokenizer):
    greedy = ("evaluation.temperature=0", "evaluation.ks=[1]", "evaluation.samples=null", "evaluation.top_p=null")
    made = generation(tokenizer, answering({"a": [fenced("right")]}), *greedy)
    evaluation = await run(made, [problem("a")])
    assert evaluation.result.pass_at_k[1].value == 1
    assert evaluation.result.sampling["temperature"] == 0
    [(n, sampling, _)] = made.pool.asked
    assert n == 1 and sampling.greedy


async def test_lengths_truncation_and_policy_version(tokenizer):
    texts = {name: ["x" * 2, "x" * 60] for name in "ab"}
    cut = ("evaluation.max_response_tokens=6", *samples(2))
    made = generation(tokenizer, answering(texts), *cut, version=lambda prompt: 8 if name_in(prompt) == "b" else 7)
    one = (await run(made, [problem("a")])).result
    assert (one.problems[0].response_tokens, one.problems[0].truncated, one.policy_version) == (4, 1, 7)
    both = (await run(made, [problem("a"), problem("b")])).result
    assert both.policy_version is None, "the weights changed in between"


async def test_progress_counts_every_sample(tokenizer):
    steps = []
    texts = {f"p{k}": [fenced("right"), fenced("")] for k in range(3)}
    made = generation(tokenizer, answering(texts), *samples(2))
    await run(made, [problem(p) for p in texts], on_outcome=lambda: steps.append(1))
    assert len(steps) == 6


async def test_no_more_problems_in_flight_than_asked(tokenizer, monkeypatch):
    running, most = 0, 0

    async def answer(prompt, i):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return "x"

    monkeypatch.setattr(module, "CONCURRENT_TASKS", 3)
    await run(generation(tokenizer, answer, *samples(1)), [problem(f"p{k}") for k in range(12)])
    assert most == 3


@pytest.mark.parametrize("where", ["generate", "grade"])
async def test_an_error_is_raised_as_itself_and_ends_the_rest(where, tokenizer):
    ended = []

    async def wait_forever(name):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def stop_or_wait(name):
        if name == "bad":
            await asyncio.sleep(0.005)
            raise UserError("the engine is gone")
        await wait_forever(name)

    async def answer(prompt, i):
        if where == "generate":
            await stop_or_wait(name_in(prompt))
        return "x"

    class Failing(ByText):
        async def grade(self, task, turn, purpose):
            await stop_or_wait(task.id)

    made = generation(tokenizer, answer, *samples(1), environment=Failing(recipe_of()))
    with pytest.raises(UserError, match="^the engine is gone$"):
        await asyncio.wait_for(run(made, [problem("a"), problem("bad"), problem("c")]), 5)
    await asyncio.sleep(0)
    assert sorted(ended) == ["a", "c"]


async def test_cancelling_ends_everything(tokenizer):
    ended = []

    async def answer(prompt, i):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name_in(prompt))

    task = asyncio.create_task(run(generation(tokenizer, answer, *samples(1)), [problem("a"), problem("b")]))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert sorted(ended) == ["a", "b"]


@pytest.mark.parametrize(("n", "ks"), [(1, (2,)), (4, (1, 8)), (0, (1,)), (4, ()), (4, (0,))])
def test_k_has_to_fit_n(n, ks):
    with pytest.raises(UserError, match="1 ≤ k ≤ n"):
        count([group([True] * n)], ks=ks)


def test_nothing_to_evaluate_and_too_few_rollouts():
    with pytest.raises(UserError, match="no problem"):
        count([])
    few = replace(group([True, False, True]), task=Task("b", ()))
    with pytest.raises(UserError, match="from 2 samples per problem"):
        count([group([True, False]), few], ks=(3,))
