"""Tool calls: how they are read, ToolAlpaca's rows and words, the options of the environment."""

from __future__ import annotations

import json

import pytest

from sdpo.config.files import validate
from sdpo.envs import build_environment
from sdpo.envs.tools.calls import Call, Unreadable, read_calls, write_calls
from sdpo.errors import UserError
from tests.helpers.tasks import turn

CALLS = [
    Call("a.b", {"x": 1, "y": [1.5, "two"], "z": {"k": None, "l": True}}),
    Call("c", {}),
    Call("d", {"q": 'He said "no, [it] is {not}"\n'}),
]


def recipe(environment=None, **data):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "environment": {"kind": "tools", **(environment or {})},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "data": data or {"source": "sdpo.envs.samples:tools"},
    }
    return validate(values, "own.yaml")


@pytest.mark.parametrize("form", ["action", "json", "python"])
def test_what_is_written_is_read_back(form):
    assert read_calls(write_calls(CALLS, form), form) == CALLS


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        ("action", 'Thought: hm\nAction: f\nAction Input: {"x":\n 1}\nObservation: …', [Call("f", {"x": 1})]),
        ("action", 'Action: f \nAction Input: {}\n\nAction: g\nAction Input:\n{"y": 2}',
         [Call("f"), Call("g", {"y": 2})]),
        ("json", 'I call [{"name": "f", "arguments": {"x": 1}}].', [Call("f", {"x": 1})]),
        ("json", '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', [Call("f")]),
        ("json", '{"name": "f"}\n{"name": "g"}', [Call("f"), Call("g")]),
        ("json", '[{"function": {"name": "f", "arguments": "{\\"x\\": 1}"}}]', [Call("f", {"x": 1})]),
        ("json", "[]", []),
        ("python", "```\nf(x=1)\n```", [Call("f", {"x": 1})]),
        ("python", "[f(1, x=-2), g(y=(1, 2), z=name, w=2*3)]",
         [Call("f", {"x": -2}, 1), Call("g", {"y": (1, 2), "z": "name", "w": 6})]),
        ("python", "[]", []),
    ],
)  # fmt: skip
def test_forms_that_models_write(form, text, calls):
    assert read_calls(text, form) == calls


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("action", "I do not know.", "There is no tool call in your answer"),
        ("action", "Action: f", "After `Action: f` there is no line `Action Input:`"),
        ("action", "Action: f\nAction Input: {x: 1}", "The `Action Input` of f is not valid JSON"),
        ("action", "Action: f\nAction Input: [1]", "must be a JSON object, not a list"),
        ("json", "I do not know.", "There is no tool call in your answer"),
        ("json", '[{"name": "f", "arguments": {]', "is not valid JSON"),
        ("json", '["f"]', "must be a JSON object with a name and its parameters, not a string"),
        ("json", '[{"arguments": {}}]', "does not name its function"),
        ("json", '[{"name": "f", "arguments": 3}]', "The arguments of f must be a JSON object, not a number"),
        ("python", "I do not know.", "must be a list of calls"),
        ("python", "[f(x=lambda: 1)]", "neither a literal nor a name"),
        ("python", "[f(**{'x': 1}), 3]", "must be a list of calls"),
        ("python", "(" * 500, "must be a list of calls"),
        ("json", "[" * 100_000, "There is no tool call"),
    ],
)
def test_what_cannot_be_read_is_told(form, text, says):
    with pytest.raises(Unreadable) as error:
        read_calls(text, form)
    assert says in str(error.value)


async def test_the_sample_rows_and_their_references():
    environment = build_environment(recipe())
    for task in environment.load().train:
        outcome = await environment.grade(task, turn(task.solution or "A tool is of no use here."), "training")
        assert (outcome.reward, outcome.label) == (1.0, "right")


def act(*calls):
    return write_calls([Call(name, arguments) for name, arguments in calls], "action")


@pytest.mark.parametrize(
    ("row", "answer", "label", "says"),
    [
        (6, " ", "no answer", "Your response is empty."),
        (0, "Hello", "unreadable", "There is no tool call"),
        (0, act(("holidays", {})), "unknown tool", "There is no tool holidays; the tools are getHolidays,"),
        (0, act(("getHolidays", {"country": "FR"})), "schema error", "the required argument `year` is missing"),
        (0, act(("getHolidays", {"country": "FR", "year": [1]})), "schema error", "wrong type; integer is expected"),
        (0, act(("getHolidays", {"country": "FR", "year": 2024, "day": 1})), "schema error", "has no argument `day`"),
        (0, act(("getHolidays", {"country": "DE", "year": 2024})), "wrong arguments", "`country` is not what"),
        (0, act(("getHolidays", {"country": "FR", "year": 2024, "type": "bank"})), "wrong arguments",
         "does not ask for `type`"),
        (1, act(("getHolidays", {"country": "IE", "year": 2023})), "wrong arguments", "needs the argument `type` too"),
        (0, act(("listCurrencies", {})), "wrong tool", "listCurrencies is not the tool"),
        (5, act(("listCurrencies", {})), "a call is missing", "needs another call"),
        (3, act(("listCurrencies", {}), ("listCurrencies", {})), "a call too many", "Make fewer calls"),
        (6, act(("listCurrencies", {})), "a call too many", "No tool should have been called"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_without_the_right_values(row, answer, label, says):
    environment = build_environment(recipe())
    task = environment.load().train[row]
    outcome = await environment.grade(task, turn(answer), "training")
    assert (outcome.reward, outcome.label) == (0.0, label) and says in outcome.feedback
    right = [value for call in task.content.wanted for value in call.arguments.values()]
    assert not [value for value in map(str, right) if value in outcome.feedback and value not in answer]


async def test_neither_the_order_of_calls_nor_of_arguments_counts():
    environment = build_environment(recipe())
    task = environment.load().train[4]
    reordered = [Call(c.name, dict(reversed(c.arguments.items()))) for c in reversed(task.content.wanted)]
    assert (await environment.grade(task, turn(write_calls(reordered, "action")), "training")).solved


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p"}, "golden_answer is not a list of calls"),
        ({"prompt": "p", "golden_answer": "no"}, "golden_answer is not valid JSON"),
        ({"prompt": "p", "golden_answer": [{"Action_Input": "{}"}]}, "has no Action"),
        ({"prompt": "p", "golden_answer": [{"Action": "f", "Action_Input": "{x}"}]}, "Action_Input of f is not valid"),
        ({"prompt": "p", "golden_answer": [{"Action": "f"}], "tools": [{"name": "g"}]}, "the answer calls f, and"),
        ({"golden_answer": []}, "there is no column prompt"),
        ({"question": "q", "function": []}, "question is not a list of turns"),
        ({"question": [[]], "function": []}, "holds no messages"),
        ({"question": [[{"role": "user", "content": "q"}]], "function": [{"name": "f"}]}, "has no parameters"),
        ({"question": [[{"role": "user", "content": "q"}]], "ground_truth": [{"f": {"y": ["2"]}}], "id": "r",
          "function": [{"name": "f", "parameters": {"properties": {"x": {"type": "string"}}, "required": []}}]},
         "no answer can be right by its own ground_truth"),
    ],
)  # fmt: skip
def test_wrong_rows_are_refused_with_their_line(tmp_path, row, reason):
    path = tmp_path / "rows.jsonl"
    good = {"prompt": "p", "golden_answer": [{"Action": "f", "Action_Input": ""}]}
    path.write_text("".join(json.dumps(r) + "\n" for r in (good, row)))
    with pytest.raises(UserError) as error:
        build_environment(recipe(path=str(path), max_bad_rows=0)).load()
    assert "rows.jsonl, line 2: " in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize(
    ("environment", "data", "says"),
    [
        ({"categories": ["multi_turn_base"]}, {"source": "bfcl"}, "set environment.turns"),
        ({"categories": ["simple_java"]}, {"source": "bfcl"}, "set environment.form=json"),
        ({"categories": ["simple"]}, {"source": "bfcl"}, "environment.categories.0"),
        ({"form": "action"}, {"source": "bfcl"}, "environment.form=action is not one of the leaderboard's"),
        ({"categories": ["multiple"]}, {"path": "x.jsonl"}, "environment.categories has no effect"),
        ({}, {"source": "livecodebench"}, "is not what environment.kind=tools reads"),
    ],
)
def test_settings_that_contradict_each_other(environment, data, says):
    with pytest.raises(UserError) as error:
        recipe(environment, **data)
    assert says in str(error.value)


def test_the_environments_own_rows_without_a_path_and_where_others_are():
    assert validate({**recipe().model_dump(exclude_unset=True), "data": {}}, "own.yaml").data.source == "bfcl"
    with pytest.raises(UserError, match="github.com/lasgroup/SDPO"):
        build_environment(recipe(path="nowhere/train.jsonl")).load()
