"""The Berkeley Function-Calling Leaderboard: its rows, prompts and verdicts, and its conversations with services."""

from __future__ import annotations

import copy
import json
import random
from typing import get_args

import pytest

from sdpo.config.files import validate
from sdpo.envs import build_environment
from sdpo.envs.tools.bfcl import Category, bfcl_task, is_conversation, language_of, package_source
from sdpo.envs.tools.calls import Call, write_calls
from sdpo.envs.tools.leaderboard import reference_calls, what_is_wrong
from sdpo.envs.tools.services import MAX_STEPS, reference_answer, replay
from sdpo.types import Outcome
from tests.helpers.bfcl import ast_checker, multi_turn_verdict, prompt_of
from tests.helpers.tasks import turn

PYTHON = [c for c in get_args(Category) if not is_conversation(c) and language_of(c) == "python" and "relev" not in c]
CONVERSATIONS = [c for c in get_args(Category) if is_conversation(c)]
# Rows that no answer can solve by the leaderboard's own rules: what has to be given has no value or no place.
IMPOSSIBLE = {"live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0"}


def rows(category: Category) -> list[dict]:
    return [given.row for given in package_source([category]).rows]


def recipe(*categories: str, turns: int = 1, **options):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "environment": {"kind": "tools", "categories": categories, "turns": turns, **options},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "data": {"source": "bfcl"},
    }
    return validate(values, "own.yaml")


def changed(calls, wanted, rng):
    """One argument of one call is another; None where every other value counts as well (both truth values, say)."""
    calls = [Call(call.name, copy.deepcopy(dict(call.arguments))) for call in calls]
    places = [
        (call, name)
        for call, goal in zip(calls, wanted, strict=True)
        for name, value in call.arguments.items()
        if other(value) not in goal[call.name][name]
    ]
    if not places:
        return None
    call, name = rng.choice(places)
    call.arguments[name] = other(call.arguments[name])
    return calls


def other(value):
    """A value that no row lists: neither by its letters nor by its size."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 7919
    if isinstance(value, str):
        return value + "zq"
    if isinstance(value, list | tuple):
        return [*value[:-1], other(value[-1])] if value else ["zq"]
    if isinstance(value, dict):
        return {**value, "zq": 1}
    return "zq"


@pytest.mark.parametrize("category", PYTHON)
def test_references_count_and_changed_ones_do_not_as_the_leaderboard_has_it(category):
    from bfcl_eval.constants.enums import Language

    checker, rng = ast_checker(), random.Random(category)

    def theirs(functions, calls, wanted):
        made = [{call.name: dict(call.arguments)} for call in calls]
        return checker(functions, made, wanted, Language.PYTHON, category, "policy")["valid"]

    seen = refused = 0
    for row in rows(category):
        functions, wanted = row["function"], row["ground_truth"]
        reference = reference_calls(wanted, functions)
        right = what_is_wrong(reference, wanted, functions) is None
        assert right == theirs(functions, reference, wanted) == (row["id"] not in IMPOSSIBLE), row["id"]
        seen += 1
        changes = changed(reference, wanted, rng)
        if changes is None:
            continue
        problem = what_is_wrong(changes, wanted, functions)
        assert problem is not None and not theirs(functions, changes, wanted), (row["id"], changes)
        refused += 1
    assert seen == len(rows(category)) and refused > 0.95 * seen


def damaged(calls, functions, rng):
    """What else models do: other names, types and numbers of calls, arguments too many or too few."""
    calls = [Call(call.name, copy.deepcopy(dict(call.arguments))) for call in calls]
    place = rng.randrange(len(calls))
    call, kind = calls[place], rng.randrange(8)
    if kind == 0:
        calls.pop(place)
    elif kind == 1:
        calls[place] = Call(rng.choice([f["name"] for f in functions] + ["nothing"]), call.arguments)
    elif kind == 2:
        call.arguments["extra"] = 1
    elif call.arguments:
        name = rng.choice(list(call.arguments))
        value = call.arguments[name]
        number = isinstance(value, int | float)
        call.arguments[name] = rng.choice(
            [
                str(value),
                [value],
                None,
                value + 1 if number else f"{value}".upper() + " .",
                float(value) if number else {},
            ]
        )
        if kind == 3:
            call.arguments.pop(name)
    rng.shuffle(calls)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("category", PYTHON)
def test_verdicts_on_damaged_answers_are_the_leaderboards(category):
    from bfcl_eval.constants.enums import Language

    checker, rng = ast_checker(), random.Random(category)
    for row in rows(category):
        functions, wanted = row["function"], row["ground_truth"]
        for _ in range(8):
            calls = damaged(reference_calls(wanted, functions), functions, rng)
            made = [{call.name: dict(call.arguments)} for call in calls]
            try:
                theirs = checker(functions, made, wanted, Language.PYTHON, category, "policy")["valid"]
            except Exception:
                continue  # it falls on some; here they are wrong
            assert (what_is_wrong(calls, wanted, functions) is None) == theirs, (row["id"], calls)


def as_text(value, language, kind, item=""):
    """A value as it is written in Java or JavaScript."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        ending = {"long": "L", "Bigint": "n"}.get(kind, "f" if (language, kind) == ("java", "float") else "")
        return f"{value}{ending}"
    if isinstance(value, list):
        quoted = language == "javascript" or kind == "ArrayList"
        items = ", ".join(f'"{v}"' if isinstance(v, str) and quoted else as_text(v, language, item) for v in value)
        if language == "java":
            return f"new ArrayList<>(Arrays.asList({items}))" if kind == "ArrayList" else f"new {item}[]{{{items}}}"
        return f"[{items}]"
    if isinstance(value, dict) and language == "java":
        return (
            f"new HashMap<>() {{{{ {' '.join(f'put({json.dumps(k)}, {json.dumps(v)});' for k, v in value.items())} }}}}"
        )
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{k}: {repr(v) if isinstance(v, str) else as_text(v, language, '')}" for k, v in value.items())
            + "}"
        )
    return str(value)


@pytest.mark.parametrize(("category", "at_least"), [("simple_java", 98), ("simple_javascript", 50)])
def test_java_and_javascript_in_json(category, at_least):
    from bfcl_eval.constants.enums import Language

    checker, language = ast_checker(), language_of(category)
    right = 0
    for row in rows(category):
        functions, wanted = row["function"], row["ground_truth"]
        [reference] = reference_calls(wanted, functions)
        types = functions[0]["parameters"]["properties"]
        written = {
            name: as_text(value, language, types[name]["type"], types[name].get("items", {}).get("type", ""))
            for name, value in reference.arguments.items()
        }
        for arguments in (written, {**written, next(iter(written)): "zq"}, {**written, next(iter(written)): 5}):
            made = [{reference.name: arguments}]
            theirs = checker(functions, made, wanted, Language(language), category, "policy")["valid"]
            ours = what_is_wrong([Call(reference.name, arguments)], wanted, functions, language) is None
            assert ours == theirs, row["id"]
            right += ours
    assert right >= at_least


@pytest.mark.slow
@pytest.mark.parametrize("category", get_args(Category))
def test_prompts_are_the_leaderboards_own(category):
    from bfcl_eval.utils import load_dataset_entry

    entries = {entry["id"]: entry for entry in load_dataset_entry(category)}
    for row in rows(category):
        if row["id"] not in IMPOSSIBLE:
            entry = entries[row["id"]]
            assert [dict(m) for m in bfcl_task(row, "python").messages] == prompt_of(entry, entry["question"][0])


async def test_the_environment_grades_what_it_loads():
    environment = build_environment(recipe("live_simple", "irrelevance", "live_relevance", form="json"))
    dataset = environment.load()
    assert len(dataset.train) == 256 + 240 + 16
    assert [str(bad)[:34] for bad in dataset.report.bad_rows] == [
        "BFCL_v4_live_simple.json, line 107",
        "BFCL_v4_live_simple.json, line 113",
    ]
    by_kind = {task.difficulty: task for task in dataset.train}
    call = write_calls([Call("nothing", {})], "json")

    async def label(kind: str, answer: str) -> tuple[str, bool]:
        outcome: Outcome = await environment.grade(by_kind[kind], turn(answer), "training")
        return outcome.label, outcome.solved

    for task in dataset.train[:256]:
        assert (await environment.grade(task, turn(task.solution), "evaluation")).solved
    assert await label("live_simple", call) == ("unknown tool", False)
    assert await label("live_simple", "Sorry.") == ("unreadable", False)
    assert await label("irrelevance", call) == ("a call too many", False)
    assert await label("irrelevance", "Sorry.") == await label("irrelevance", "[]") == ("right", True)
    assert await label("live_relevance", call) == ("right", True)
    assert await label("live_relevance", "[]") == ("no call", False)


def conversation(row, rng=None):
    """Answers of the reference, calls and then none for each message of the user; rng: with one call changed."""
    steps = [reference_answer(calls, row["involved_classes"]) for calls in row["ground_truth"]]
    if rng is not None:
        place = rng.choice([i for i, calls in enumerate(steps) if calls])
        call = rng.choice(steps[place])
        if rng.random() < 0.5 or not call.arguments:
            steps[place].remove(call)
        else:
            name = rng.choice(list(call.arguments))
            call.arguments[name] = other(call.arguments[name])
    answers = [text for calls in steps for text in ([write_calls(calls, "python")] if calls else []) + ["Done."]]
    texts = [[[write_calls([call], "python")[1:-1] for call in calls]] if calls else [] for calls in steps]
    return answers, texts


@pytest.mark.parametrize("category", CONVERSATIONS)
def test_conversations_of_the_reference_end_well_and_the_verdicts_on_changed_ones_are_the_leaderboards(category):
    for row in rows(category)[:50]:
        answers, _ = conversation(row)
        end = replay(row, row["ground_truth"], answers)
        assert (end.over, end.problem, end.done) == (True, None, len(row["ground_truth"])), row["id"]
        changes, texts = conversation(row, random.Random(row["id"]))
        end = replay(row, row["ground_truth"], changes)
        assert (end.over and end.problem is None) == multi_turn_verdict(row, row["ground_truth"], texts), row["id"]


@pytest.mark.slow
@pytest.mark.parametrize("category", CONVERSATIONS)
def test_all_conversations(category):
    for row in rows(category):
        answers, texts = conversation(row)
        end = replay(row, row["ground_truth"], answers)
        assert end.over and end.problem is None and multi_turn_verdict(row, row["ground_truth"], texts), row["id"]


async def test_services_answer_turn_by_turn_and_what_they_refuse_is_the_feedback():
    environment = build_environment(recipe("multi_turn_base", turns=8))
    task = environment.load().train[0]
    assert "GorillaFileSystem" not in task.messages[-1]["content"] and task.messages[-1]["role"] == "user"
    first = "[cd(folder='document'), mkdir(dir_name='temp'), mv(source='final_report.pdf', destination='temp')]"
    said: list[str] = []
    with environment:

        async def answer(text: str) -> Outcome:
            said.append(text)
            return await environment.respond(task, [turn(one) for one in said], "training")

        called = await answer(first)
        assert (called.label, called.reward, called.feedback) == ("call", 0.0, None)
        assert [message["role"] for message in called.reply] == ["tool"] * 3
        assert json.loads(called.reply[0]["content"]) == {"current_working_directory": "document"}
        asked = await answer("Done.")
        assert asked.label == "next message" and asked.reply == task.content.messages[1]
        refused = await answer("[cat(file_name='nothing.txt')]")
        assert refused.label == "error" and "No such file or directory" in refused.feedback and refused.reply
        hostile = await answer("[__import__('os').system('true'), _load_scenario(scenario={})]")
        assert hostile.label == "error" and hostile.feedback.count("is not defined") == 2
        wrong = await answer("Done.")
        assert (wrong.label, wrong.reply, wrong.solved) == ("wrong state", (), False)
        assert "state" in wrong.feedback or "looked up" in wrong.feedback
        said[2:] = []
        for _ in range(6):
            last = await answer("[ls()]")
        assert (last.label, last.reply) == ("unfinished", ())


def test_calls_without_an_end_are_stopped():
    row = rows("multi_turn_base")[0]
    end = replay(row, row["ground_truth"], ["[ls()]"] * (MAX_STEPS + 1))
    assert end.over and "without an end" in end.problem
