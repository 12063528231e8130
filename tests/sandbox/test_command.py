"""`python -m sandbox`: programs from files, directories and lines; clear errors instead of tracebacks."""

from __future__ import annotations

import gzip
import json
import lzma

import pytest

from sandbox.__main__ import main
from sandbox.testfile import find_programs

TESTS = [{"input": "1", "output": "2"}, {"input": "5", "output": "6"}]
ADD = "print(int(input()) + 1)\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tests.json").write_text(json.dumps(TESTS))
    return tmp_path


def _judge(folder, program: str, *more: str) -> int:
    return main(["judge", "--program", str(folder / program), "--tests", str(folder / "tests.json"), *more])


def test_a_program_that_passes(folder, capsys):
    (folder / "p.py").write_text(ADD)
    assert _judge(folder, "p.py") == 0
    assert "accepted" in capsys.readouterr().out


def test_a_program_that_fails_shows_its_report(folder, capsys):
    (folder / "p.py").write_text("print(nothing)\n")
    assert _judge(folder, "p.py") == 1
    out = capsys.readouterr().out
    assert "runtime error" in out and "NameError: name 'nothing' is not defined" in out


def test_a_directory_as_json(folder, capsys):
    programs = folder / "programs"
    programs.mkdir()
    (programs / "a.py").write_text(ADD)
    (programs / "b.md").write_text(f"Here it is:\n```python\n{ADD}```\n")
    (programs / "c.md").write_text("I have no idea.\n")
    (programs / "d.py").write_bytes(b"print('\xff\xfe')\n")
    (programs / "e.py").write_text("print(input() * 2)")
    (programs / "e.tests.json").write_text(json.dumps([{"input": "ab", "output": "abab"}]))
    assert _judge(folder, "programs", "--json") == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(item["program"], item["verdict"]) for item in found] == [
        ("a.py", "accepted"),
        ("b.md", "accepted"),
        ("c.md", "no code"),
        ("d.py", "compile error"),
        ("e.py", "accepted"),
    ]
    assert found[0]["tests"][1]["input"] == "5" and found[2]["report"] == "no code"


def test_lines(folder, capsys):
    functional = {"code": "def f(a): return a + 1", "tests": {"fn_name": "f", "tests": [{"input": "1", "output": "2"}]}}
    lines = [{"name": "x", "code": ADD}, {"response": f"```\n{ADD}```"}, functional]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert _judge(folder, "p.jsonl", "--json", "--all") == 0
    assert [json.loads(line)["program"] for line in capsys.readouterr().out.splitlines()] == ["x", "2", "3"]


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "is not JSON"),
        ("[]", "at least one test"),
        ('[{"input": "1"}]', "test 1 lacks 'output'"),
        ("[1]", "test 1 is no object"),
        ("[" * 100_000, "is not JSON"),
        ('[{"input": "x", "output": "1", "fn_name": "f"}]', "input is not JSON"),
        ('[{"input": 1, "output": "1"}]', "must be text"),
    ],
)
def test_bad_tests_are_one_clear_line(folder, capsys, content, words):
    (folder / "p.py").write_text(ADD)
    (folder / "tests.json").write_text(content)
    assert _judge(folder, "p.py") == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.count("\n") == 1


def test_missing_files_and_limits_out_of_range(folder, capsys):
    assert _judge(folder, "absent.py") == 2
    (folder / "p.py").write_text(ADD)
    assert _judge(folder, "p.py", "--memory-mb", "0") == 2
    assert "memory_mb must be positive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"code": 5}', "must be text"),
        ('{"response": null}', "expected a JSON object with code or response"),
        ("[" * 100_000, "expected a JSON object with code or response"),
        ('{"code": "x", "tests": 5}', "at least one test"),
    ],
)
def test_bad_lines_are_one_clear_line(folder, capsys, line, words):
    (folder / "p.jsonl").write_text(line)
    assert _judge(folder, "p.jsonl") == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "option, words",
    [
        ("--workers=0", "workers must be"),
        ("--workers=-1", "workers must be"),
        ("--cpu-time-s=inf", "cpu_time_s must be"),
        ("--memory-mb=99999999999999", "memory_mb must be"),
        ("--wall-time-s=nan", "wall_time_s must be"),
    ],
)
def test_numbers_out_of_range_are_one_clear_line(folder, capsys, option, words):
    (folder / "p.py").write_text(ADD)
    assert _judge(folder, "p.py", option) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_doctor_tells_the_level_and_that_it_works(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["level"] in ("namespaces", "landlock", "seccomp") and report["works"]
    assert main(["doctor"]) == 0
    assert f"isolation: {report['level']}" in capsys.readouterr().out


def _row(text: str) -> str:
    row = {"code": f"print('a{text}b')", "tests": [{"input": "", "output": f"a{text}b"}]}
    return json.dumps(row, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("character", "\u2028\u2029\x85\xa0\u200b")
def test_a_line_ends_in_a_newline_and_nowhere_else(folder, character):
    (folder / "p.jsonl").write_text(_row(character) * 2, encoding="utf-8")
    programs = find_programs(folder / "p.jsonl", None)
    assert [code for _, code, _ in programs] == [f"print('a{character}b')"] * 2


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("p.jsonl", lambda text: text.replace("\n", "\r\n").encode("utf-8-sig")),
        ("p.jsonl", lambda text: text.encode("utf-16")),
        ("p.jsonl", lambda text: gzip.compress(text.encode())),
        ("p.jsonl.gz", lambda text: gzip.compress(text.encode())),
        ("p.jsonl.xz", lambda text: lzma.compress(text.encode("utf-32"))),
    ],
)
def test_packed_and_differently_encoded_lines_are_read(folder, name, pack):
    (folder / name).write_bytes(pack(_row("\u2028ä")))
    assert [code for _, code, _ in find_programs(folder / name, None)] == ["print('a\u2028äb')"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1" + bytes(50), "is a Parquet file"),
        (b"PK\x03\x04" + bytes(50), "is a zip file"),
        (gzip.compress(_row("x").encode(), mtime=0)[:-9], "its gzip data is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.py", "tests.json"])
def test_a_file_of_another_kind_is_refused_by_what_it_is(folder, capsys, name, content, words):
    (folder / "p.py").write_text(ADD)
    (folder / name).write_bytes(content)
    assert _judge(folder, "p.jsonl" if name == "p.jsonl" else "p.py") == 2
    assert words in capsys.readouterr().err


def test_a_draft_in_a_thought_is_no_program(folder):
    (folder / "p.md").write_text(f"<think>\n```python\n{ADD}```\n")
    assert find_programs(folder / "p.md", folder / "tests.json")[0][1] is None
