"""Rows of any origin become tasks: columns, splits, and what is said of rows that cannot be used."""

from __future__ import annotations

import json
import sys
from typing import ClassVar

import pytest

from sdpo.config.files import validate
from sdpo.envs.base import Environment
from sdpo.envs.rows import ROW_INERT, ROW_OPTIONS, BadRow, check_rows, load_rows, make_task
from sdpo.envs.rows.columns import read_messages
from sdpo.errors import UserError


class Rows(Environment):
    """Reads rows and grades nothing."""

    reads: ClassVar = ROW_OPTIONS
    inert: ClassVar = ROW_INERT

    @classmethod
    def check(cls, recipe):
        check_rows(recipe)

    def load(self, progress=None):
        return load_rows(self.recipe, progress=progress)

    async def grade(self, task, turn, purpose):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "rows_under_test", sys.modules[__name__])
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def recipe(**data):
    values = {
        "recipe": "own",
        "profile": "cpu",
        "environment": {"kind": "rows_under_test:Rows"},
        "model": {"path": "policies/minicode", "dtype": "float32"},
        "learner": {"zero_stage": 0},
        "data": data,
    }
    return validate(values, "own.yaml")


def load(**data):
    return Rows(recipe(**data)).load()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def questions(n):
    return [{"question": f"What is {i} + 1?", "answer": i + 1} for i in range(n)]


def test_usual_columns_need_no_names(tmp_path):
    write(tmp_path / "sums.jsonl", [{"id": 7, "difficulty": "easy", "note": "n", **questions(1)[0]}, *questions(2)[1:]])
    first, second = load(path="sums.jsonl").train
    assert (first.id, first.difficulty, first.solution) == ("7", "easy", "1")
    assert first.messages == ({"role": "user", "content": "What is 0 + 1?"},)
    assert first.content["answer"] == 1 and first.columns["note"] == "n"
    assert second.id == "sums-2"


def test_columns_are_named_in_the_recipe_and_reach_into_objects(tmp_path):
    chat = [{"role": "system", "content": "Add."}, {"role": "user", "content": [{"type": "text", "text": "1 + 1"}]}]
    write(tmp_path / "r.jsonl", [{"chat": chat, "reward_model": {"ground_truth": "2"}, "extra": {"index": 5}}])
    [task] = load(
        path="r.jsonl", columns={"prompt": "chat", "answer": "reward_model.ground_truth", "id": "extra.index"}
    ).train
    assert [m["content"] for m in task.messages] == ["Add.", "1 + 1"]
    assert (task.solution, task.id) == ("2", "5")


def test_an_assistants_last_message_is_the_reference():
    row = {"messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]}
    task = make_task(row, recipe(path="x").data.columns)
    assert (len(task.messages), task.solution) == (1, "4")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("  ", "its prompt is empty"),
        (7, "its prompt is a int"),
        ("a\ud800", "character 2 of its prompt is half a character"),
        ([], "not a text or a list of messages"),
        (["hello"], "message 1 is a str"),
        ([{"role": "boss", "content": "x"}], "the role of message 1 is 'boss'"),
        ([{"role": "user", "content": None}], "the content of message 1 is not text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the content of message 1 is not text"),
        ([{"role": "assistant", "content": "x"}], "none of the user's"),
        ([{"role": "system", "content": "x"}], "none of the user's"),
    ],
)
def test_prompts_that_ask_nothing_are_refused(value, says):
    with pytest.raises(BadRow, match=says):
        read_messages(value)


def test_wrong_rows_are_counted_with_their_lines(tmp_path):
    lines = [json.dumps(row) for row in questions(100)]
    lines[3:3] = ["{", json.dumps({"quest": 1}), json.dumps([1]), json.dumps({"question": 5})]
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n")
    report = load(path="r.jsonl", max_bad_rows=0.1).report
    assert (report.rows, [row.line for row in report.bad_rows]) == (104, [4, 5, 6, 7])
    assert "there is no column prompt or messages or question" in str(report.bad_rows[1])
    with pytest.raises(UserError, match=r"4 of 104 rows cannot be used; 1 would be accepted(.|\n)*r.jsonl, line 4: "):
        load(path="r.jsonl")


def test_a_named_column_that_is_missing_names_those_that_are_there(tmp_path):
    write(tmp_path / "r.jsonl", questions(3))
    with pytest.raises(UserError, match=r"column prmpt \(data.columns.prompt\) is missing; there are question, answer"):
        load(path="r.jsonl", columns={"prompt": "prmpt"})


def test_the_same_id_twice_is_a_wrong_row(tmp_path):
    write(tmp_path / "r.jsonl", [{"id": 1, **row} for row in questions(2)])
    assert "its id 1 was already in r.jsonl, line 1" in str(load(path="r.jsonl").report.bad_rows[0])


def test_held_out_tasks_stay_when_others_come_and_no_question_is_on_both_sides(tmp_path):
    rows = questions(200)
    write(tmp_path / "r.jsonl", rows + rows[:50])  # the same questions under other ids
    dataset = load(path="r.jsonl", problem_split="hash")
    asked = [{task.messages[0]["content"] for task in side} for side in (dataset.train, dataset.evaluation)]
    assert asked[0].isdisjoint(asked[1]) and dataset.held_out and 25 <= len(asked[1]) <= 75
    write(tmp_path / "r.jsonl", [{"question": "new", "answer": 0}, *reversed(rows)])
    again = load(path="r.jsonl", problem_split="hash")
    assert {task.messages[0]["content"] for task in again.evaluation} - {"new"} == asked[1]


def test_rows_say_themselves_what_is_held_out(tmp_path):
    rows = [{**row, "split": "test" if i % 4 == 0 else "train"} for i, row in enumerate(questions(8))]
    write(tmp_path / "r.jsonl", rows)
    assert [task.id for task in load(path="r.jsonl", problem_split="marked").evaluation] == ["r-1", "r-5"]
    write(tmp_path / "r.jsonl", [*rows, {**questions(9)[8], "split": "trian"}])
    assert "'trian'" in str(load(path="r.jsonl", problem_split="marked").report.bad_rows[0])


def test_rows_of_their_own_to_evaluate_on(tmp_path):
    for folder, rows in (("a", questions(6)), ("b", questions(9)[4:])):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "r.jsonl", rows)
    dataset = load(path="a/r.jsonl", evaluation_path="b")
    assert len(dataset.train) == 6 and len(dataset.evaluation) == 3 and dataset.held_out
    assert set(dataset.report.left_out.values()) == {"to evaluate on, but the same question is trained on"}


@pytest.mark.parametrize("saved", [True, False])
def test_a_hugging_face_data_set_in_a_folder(tmp_path, monkeypatch, saved):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sides = {"train": questions(5), "test": questions(8)[5:]}
    if saved:
        datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in sides.items()}).save_to_disk("d")
    else:
        (tmp_path / "d" / "data").mkdir(parents=True)
        for name, rows in sides.items():
            datasets.Dataset.from_list(rows).to_parquet(f"d/data/{name}-00000-of-00001.parquet")
    dataset = load(path="d")
    assert len(dataset.train) == 5 and "further splits (test)" in dataset.report.notes[0]
    dataset = load(path="d", evaluation_split="test")
    assert (len(dataset.train), len(dataset.evaluation), dataset.held_out) == (5, 3, True)
    with pytest.raises(UserError, match="train"):
        load(path="d", split="trian")


def test_what_is_nowhere_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("sdpo.envs.rows.source.why_offline", lambda: "the hub does not answer")
    with pytest.raises(UserError, match="There is no file or folder tasks.jsonl"):
        load(path="tasks.jsonl")
    with pytest.raises(UserError, match="There is no file or folder data/tasks.jsonl"):
        load(path="data/tasks.jsonl")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'sdpo\[datasets\]'"):
        load(path="owner/name")


def test_a_hub_that_does_not_answer_leaves_the_cache(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("sdpo.envs.rows.source.why_offline", lambda: "the hub does not answer")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="owner/name-of-nothing .* not in the cache, and the hub does not answer"):
        load(path="owner/name-of-nothing")


SOURCE = """
from sdpo.types import Task

def tasks():
    for i in range(3):
        yield {"question": f"What is {i}?", "answer": i}
    yield Task("own", ({"role": "user", "content": "What?"},))
    yield 7

def broken():
    yield {"question": "a"}
    raise KeyError("no such thing")
"""


@pytest.mark.parametrize("reference", ["my_rows.py:tasks", "my_rows:tasks"])
def test_a_function_gives_rows_or_tasks(tmp_path, reference):
    (tmp_path / "my_rows.py").write_text(SOURCE)
    dataset = load(source=reference)
    assert [task.id for task in dataset.train] == [*(f"{reference}-{i}" for i in (1, 2, 3)), "own"]
    assert "row 5: it is a int, neither a dict nor a Task" in str(dataset.report.bad_rows[0])


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("my_rows:broken", r"raised an error:\n  File .*my_rows.py.*(.|\n)*KeyError: 'no such thing'"),
        ("my_rows:task", "has no function task. Did you mean tasks?"),
        ("my_rose:tasks", "Python finds no module my_rose, neither in the current folder"),
        ("my_rose.py:tasks", "there is no file .*my_rose.py"),
        ("my_rows:Task.id", "is unknown"),
    ],
)
def test_functions_that_give_no_rows(tmp_path, reference, says):
    (tmp_path / "my_rows.py").write_text(SOURCE)
    with pytest.raises(UserError, match=says):
        load(source=reference)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "does not say where its rows are"),
        ({"source": "livecodebench"}, "data.source=livecodebench is not what"),
        ({"source": "a:b", "path": "c"}, "remove one of the two"),
        ({"source": "a:b", "split": "train"}, "data.split has no effect with data.source"),
        ({"path": "c", "held_out_fraction": 0.5}, "data.held_out_fraction has no effect unless"),
        ({"path": "c", "problem_split": "hash", "evaluation_split": "test"}, "data.problem_split has no effect beside"),
        ({"path": "c", "test_split": "official"}, "data.test_split has no effect with environment.kind"),
        (
            {"path": "c", "columns": {"promt": "q"}},
            "unknown option data.columns.promt. Did you mean data.columns.prompt?",
        ),
    ],
)
def test_contradictions_are_named(data, says):
    with pytest.raises(UserError) as error:
        recipe(**data)
    assert says in str(error.value)
