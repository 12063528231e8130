"""Official files → problems: windows, releases, bad rows, and messages that say what to do."""

from __future__ import annotations

import json
import re
from datetime import date, datetime

import pytest

from sandbox import Limits, TestCase
from sdpo.envs.code import DateWindow, LCBRow, load_livecodebench, write_rows
from sdpo.envs.code.livecodebench import read_questions
from sdpo.envs.code.window import V6_WINDOW, contest_moment
from sdpo.envs.report import DataReport
from sdpo.errors import UserError


def load(path, **options):
    return load_livecodebench(
        path, **{"test_split": "public-private", "problem_split": "none", "max_bad_rows": 0.01} | options
    )


def ids(problems):
    return [problem.id for problem in problems]


# ------------------------------------------------------------------------------------------------- what a row becomes


def test_a_stdin_row(official_row, write_file):
    path = write_file([official_row("abc1_a", private=(("1\n", "1"), ("2\n", "2")), packed=True)])
    dataset = load(path, limits=Limits(cpu_time_s=2))
    (problem,) = dataset.train
    assert dataset.evaluation == dataset.train
    assert (problem.id, problem.title, problem.difficulty, problem.platform) == ("abc1_a", "A. Echo", "easy", "atcoder")
    assert problem.statement == "Print what you read. (abc1_a)"
    assert problem.contest_date == "2025-03-01T12:00:00"
    assert problem.training_tests == (TestCase("0\n", "0"),)
    assert problem.evaluation_tests == (TestCase("1\n", "1"), TestCase("2\n", "2"))
    assert not problem.functional
    assert problem.limits == Limits(cpu_time_s=2)
    assert (dict(problem.files), problem.solution) == ({}, None)
    assert dataset.report.lines() == []


def test_func_name_decides_what_is_functional_and_testtype_does_not(official_row, write_file):
    path = write_file(
        [
            official_row(
                "f", private=(("[1]\n2", "3"),), metadata='{"func_name": "add"}', starter_code="class Solution:"
            ),
            official_row("s", testtype="functional"),
        ]
    )
    functional, script = load(path).train
    assert functional.functional and functional.evaluation_tests == (TestCase("[1]\n2", "3", "functional", "add"),)
    assert functional.training_tests[0].fn_name == "add"
    assert functional.starter_code == "class Solution:"
    assert not script.functional and script.evaluation_tests[0].fn_name is None


def test_files_solution_and_mark_come_from_metadata(tmp_path):
    test = TestCase("1\n", "1")
    rows = [
        LCBRow("a", "t", "c", [test], [test], files={"kit": "def f(): pass"}, solution="print(1)", split="train"),
        LCBRow("b", "t", "d", [test], [test], split="heldout"),
    ]
    write_rows(tmp_path / "test.jsonl", rows)
    dataset = load(tmp_path, problem_split="marked")
    assert (ids(dataset.train), ids(dataset.evaluation)) == (["a"], ["b"])
    assert dataset.train[0].files == {"kit": "def f(): pass"} and dataset.train[0].solution == "print(1)"


# ------------------------------------------------------------------------------------------------------------ windows


def test_the_v6_window_is_half_open(official_row, write_file):
    days = {
        "a": "2025-01-31T23:59:59",
        "b": "2025-02-01T00:00:00",
        "c": "2025-02-01",
        "d": "2025-04-30T23:59:59",
        "e": "2025-05-01T00:00:00",
        "f": "2025-05-01T01:30:00+02:00",  # 30 April, UTC
    }
    path = write_file([official_row(name, contest_date=day) for name, day in days.items()])
    dataset = load(path, window=V6_WINDOW)
    assert ids(dataset.train) == ["b", "c", "d", "f"]
    assert (dataset.report.rows, dataset.report.outside_window) == (6, 2)
    assert dataset.name == "test [2025-02-01, 2025-05-01)"
    assert any("131 questions; these files have 4" in line for line in dataset.report.lines())
    assert ids(load(path, window=(date(2025, 2, 1), date(2025, 5, 1))).train) == ["b", "c", "d", "f"]
    assert ids(load(path, window=(None, date(2025, 2, 1))).train) == ["a"]
    assert ids(load(path, window=(date(2025, 5, 1), None)).train) == ["e"]
    assert ids(load(path).train) == list(days)


def test_an_offset_is_taken_into_account():
    assert contest_moment("2025-05-01T01:30:00+02:00") == datetime(2025, 4, 30, 23, 30)


def test_rows_outside_the_window_are_not_unpacked(official_row, write_file):
    old = official_row("old", contest_date="2024-01-01", private_test_cases="cannot be unpacked", metadata="{")
    assert ids(load(write_file([old, official_row("new")]), window=V6_WINDOW, max_bad_rows=0).train) == ["new"]


def test_an_empty_window_says_so(official_row, write_file):
    path = write_file([official_row()])
    with pytest.raises(UserError, match=r"None of the 1 rows of test.jsonl.*\[2024-01-01, 2024-02-01\).*data.window"):
        load(path, window=(date(2024, 1, 1), date(2024, 2, 1)))
    with pytest.raises(UserError, match="holds no day"):
        load(path, window=(date(2025, 2, 1), date(2025, 2, 1)))
    with pytest.raises(UserError, match="holds no day"):
        DateWindow(date(2025, 5, 1), date(2025, 2, 1))
    with pytest.raises(UserError, match="None of the 0 rows"):
        load(write_file([], "empty.jsonl"))


# ----------------------------------------------------------------------------------------------------------- bad rows

BROKEN = {
    "the row is not JSON": b'{"question_id": \n',
    "a JSON list, not an object": b"[]\n",
    "the row is not JSON ('utf-8'": b'{"question_id": "\xff"}\n',
    "difficulty is missing": {"difficulty": ...},
    "starter_code is not a string": {"starter_code": None},
    "question_id is empty": {"question_id": " "},
    "contest_date 'soon' is not an ISO 8601 date": {"contest_date": "soon"},
    "contest_date 20250301 is not": {"contest_date": 20250301},
    "there are no tests": {"public_test_cases": "[]", "private_test_cases": "[]"},
    "the tests are not JSON": {"public_test_cases": "[1"},
    "neither a JSON list nor base64": {"private_test_cases": "???"},
    "metadata is not JSON": {"metadata": "{"},
    "functional test 1: its input is not JSON": {"metadata": '{"func_name": "f"}', "public_test_cases": "@"},
    "was already in test.jsonl, line 1": {"question_id": "first"},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_bad_row_is_reported_with_file_line_and_reason(reason, official_row, write_file):
    broken = BROKEN[reason]
    if isinstance(broken, dict):
        row = official_row("bad") | broken
        if row["public_test_cases"] == "@":
            row["public_test_cases"] = json.dumps([{"input": "x y", "output": "1"}])
        broken = {key: value for key, value in row.items() if value is not ...}
    rows = [official_row("first"), b"\n", broken, official_row("last")]
    dataset = load(write_file(rows), window=V6_WINDOW)
    assert ids(dataset.train) == ["first", "last"]
    (bad,) = dataset.report.bad_rows
    assert (bad.file, bad.line) == ("test.jsonl", 3)
    assert reason in bad.reason
    assert f"Bad row skipped: test.jsonl, line 3: {bad.reason}" in dataset.report.lines()
    assert dataset.report.to_json()["bad_rows"] == [{"file": "test.jsonl", "line": 3, "reason": bad.reason}]
    assert dataset.report.rows == 3


def test_a_file_that_was_cut_off(official_row, write_file):
    whole = json.dumps(official_row("b")).encode()
    dataset = load(write_file([official_row("a"), whole[: len(whole) // 2]]))
    assert ids(dataset.train) == ["a"]
    assert "line 2: the file ends in the middle of a row" in str(dataset.report.bad_rows[0])
    assert ids(load(write_file([official_row("a"), whole])).train) == ["a", "b"], "only the last newline is missing"


def test_a_file_with_a_byte_order_mark(official_row, write_file):
    path = write_file([b"\xef\xbb\xbf" + json.dumps(official_row("a")).encode()])
    assert ids(load(path, max_bad_rows=0).train) == ["a"]


@pytest.mark.parametrize(
    ("rows", "bad", "limit", "stops"),
    [
        (10, 1, 0.01, False),  # a single bad row never stops a run …
        (10, 1, 0.0, True),  # … unless none is allowed
        (10, 2, 0.01, True),
        (10, 2, 0.2, False),
        (10, 3, 0.2, True),
        (300, 3, 0.01, False),
        (300, 4, 0.01, True),
        (10, 10, 0.01, True),
    ],
)
def test_too_many_bad_rows_stop_the_run(rows, bad, limit, stops, official_row, write_file):
    path = write_file([b"broken\n"] * bad + [official_row(f"q{k}") for k in range(rows - bad)])
    if not stops:
        dataset = load(path, max_bad_rows=limit)
        assert (len(dataset.train), len(dataset.report.bad_rows)) == (rows - bad, bad)
        return
    with pytest.raises(UserError, match=re.escape(f"{bad} of {rows} rows cannot be used")) as stopped:
        load(path, max_bad_rows=limit)
    assert "test.jsonl, line 1: the row is not JSON" in str(stopped.value)
    assert f"data.max_bad_rows={limit}" in str(stopped.value)
    assert str(stopped.value).count("line ") <= 10


def test_bad_rows_break_the_published_halves_and_the_report_says_so(official_row, write_file):
    path = write_file([b"broken\n", official_row()])
    assert any("not the published ones" in line for line in load(path, test_split="published").report.lines())


def test_the_bound_on_unpacked_tests_reaches_the_rows(official_row, write_file):
    path = write_file([official_row("a", private=2000, packed=True), official_row("b", packed=True)])
    report = DataReport()
    questions = list(read_questions([path], report=report, max_test_bytes=10_000))
    assert [q.id for q in questions] == ["b"]
    assert "more than 10,000 bytes" in report.bad_rows[0].reason


# ------------------------------------------------------------------------------------------------------------ options


def test_ungradable_problems_are_left_out_on_request_by_id_or_title(official_row, write_file):
    path = write_file(
        [official_row("abc337_e"), official_row("x", question_title="find-the-peaks"), official_row("ok")]
    )
    assert ids(load(path).train) == ["abc337_e", "x", "ok"]
    dataset = load(path, exclude_ungradable=True)
    assert ids(dataset.train) == ["ok"]
    assert dataset.report.excluded == {"abc337_e": "interactive", "x": "several outputs are right"}
    assert "Excluded (interactive): abc337_e." in dataset.report.lines()


def test_progress_covers_every_byte(official_row, write_file):
    path = write_file([official_row("a"), b"\n", official_row("b")])
    seen = []
    load(path, progress=lambda *step: seen.append(step))
    assert [s[0] for s in seen] == ["test.jsonl"] * 3
    assert [s[1] for s in seen] == sorted(s[1] for s in seen)
    assert seen[-1][1] == seen[-1][2] == path.stat().st_size
