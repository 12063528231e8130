"""The world of tool calls: what it asks for, what its service answers, and that nothing of it is in the corpus."""

from __future__ import annotations

import asyncio
import json
import random
import re

import pytest

from sdpo.envs import build_environment
from sdpo.envs.minitools.service import Request, Step, converse
from sdpo.envs.minitools.world import make_world
from sdpo.envs.words import PRETRAINING, WORLD, half_of
from studies.pretrain.worlds import CORPORA
from tests.helpers.training import make_recipe

ONE = Request((Step("jorp", "flam", "kelo", "zin", 3),), ("kelo", "dramp"), ("zin", "tol"))
TWO = Request((*ONE.steps, Step("mib", "tuk", "dramp", "tol", None)), ONE.tools, ONE.arguments)
RIGHT = '{"name": "kelo", "arguments": {"zin": 3}}'


def call(name="kelo", **arguments) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def test_the_right_call_solves_a_request_of_one_step():
    assert ONE.steps[0].call(None) == RIGHT == ONE.solution
    assert converse(ONE, [RIGHT]).solved and converse(ONE, [f"```json\n{RIGHT}\n```"]).solved


@pytest.mark.parametrize(
    ("answer", "label", "told"),
    [
        (call("dramp", zin=3), "wrong tool", ["`jorp` is done by `kelo`."]),
        (call(tol=3), "wrong argument", ["`flam` is called `zin`."]),
        (call("dramp", tol=3), "wrong tool", ["`jorp` is done by `kelo`.", "`flam` is called `zin`."]),
        (call(zin=3, tol=3), "wrong argument", ["`flam` is called `zin`."]),
        (call(zin=4), "wrong value", ["`zin` must be 3."]),
        (call(zin="3"), "wrong value", ["`zin` must be 3."]),
        (call(zin=True), "wrong value", ["`zin` must be 3."]),
        ("kelo(zin=3)", "no call", ['Expected {"name": …, "arguments": {…}}.']),
        ("[" * 100_000, "no call", ['Expected {"name": …, "arguments": {…}}.']),
        (RIGHT + RIGHT, "no call", ['Expected {"name": …, "arguments": {…}}.']),
    ],
)
def test_the_service_says_everything_that_is_wrong(answer, label, told):
    outcome = converse(ONE, [answer])
    assert (outcome.reward, outcome.solved, outcome.label) == (0.0, False, label)
    assert outcome.feedback == "\n".join(told) == outcome.reply[0]["content"]


def test_two_steps_pass_on_the_result():
    first = converse(TWO, [call(tol=1), RIGHT])
    assert first.reward == 0.5 and not first.solved and first.feedback is None
    result = int(re.fullmatch(r"Result: (\d+)\.", first.reply[0]["content"])[1])
    assert converse(TWO, [RIGHT, call("dramp", tol=result + 1)]).feedback == f"`tol` must be {result}."
    assert converse(TWO, [RIGHT, call("dramp", tol=result)]).solved
    assert TWO.statement.endswith("`jorp` `flam` 3, then `mib` `tuk` the result.")


def test_a_world_repeats_and_its_held_out_words_are_trained_on():
    world = make_world(3)
    assert world == make_world(3) != make_world(4)
    assert (len(world.train), len(world.held_out)) == (64, 32)

    def pairs(requests):
        return {(step.verb, step.noun) for request in requests for step in request.steps}

    assert not pairs(world.train) & pairs(world.held_out)
    for side in (0, 1):
        assert {pair[side] for pair in pairs(world.held_out)} <= {pair[side] for pair in pairs(world.train)}
    for request in (*world.train, *world.held_out, *world.train_two_steps, *world.held_out_two_steps):
        assert len(set(request.tools)) == 6 and len(set(request.arguments)) == 4
        assert {step.tool for step in request.steps} <= set(request.tools)


def test_no_word_of_a_world_is_in_the_corpus():
    world = make_world(0)
    secret = {*world.verbs, *world.verbs.values(), *world.nouns, *world.nouns.values()}
    assert len(secret) == 48 and all(half_of(word) == WORLD for word in secret)
    for example in CORPORA["minitools"].examples(0, 200):
        words = re.findall(r"`(\w+)`", example.content.split("<|assistant|>")[0])
        assert words and all(half_of(word) == PRETRAINING for word in words)


def test_the_corpus_answers_what_its_prompts_ask():
    """The answer solves the step that the conversation has come to, whatever was tried before."""
    modes = set()
    for example in CORPORA["minitools"].examples(1, 300):
        modes.add(example.mode)
        request = json.loads(example.response)
        assert f"`{request['name']}`" in example.content.split(";")[0]
        if example.mode == "solution":
            assert example.content.endswith(f"\nSolution:\n{example.response}")
    assert modes == set(CORPORA["minitools"].modes)


@pytest.mark.parametrize(("turns", "train", "held_out"), [(1, 64, 32), (3, 80, 40)])
def test_two_steps_are_asked_for_where_there_are_two_turns(turns, train, held_out):
    recipe = make_recipe(
        "sdpo", "data.source=minitools", "data.test_split=null", "data.problem_split=null",
        "sandbox.cpu_time_s=null", "sandbox.memory_mb=null",
        f"environment.turns={turns}", "data.world_seed=5",
    )  # fmt: skip
    environment = build_environment(recipe)
    dataset = environment.load()
    assert (len(dataset.train), len(dataset.evaluation), dataset.name) == (train, held_out, "minitools-5")
    assert dataset.held_out
    task = random.Random(0).choice(dataset.train)

    class Said:
        answer = task.solution

    outcome = asyncio.run(environment.respond(task, [Said()], "training"))
    assert outcome.reward == 1 / len(task.content.steps)
