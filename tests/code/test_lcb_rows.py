"""The row format: tests decoded without running anything, within bounds; rows that the official reader can read."""

from __future__ import annotations

import base64
import json
import pickle
import struct
import tracemalloc
import zlib

import pytest

from sandbox import TestCase
from sdpo.envs.code.lcb_rows import (
    FIELDS,
    BadRow,
    LCBRow,
    check_functional,
    decode_metadata,
    decode_tests,
    encode_row,
    pickled_str,
    write_rows,
)


def pack(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


TESTS = json.dumps([{"input": "1 ü €\n", "output": "2", "testtype": "stdin"}, {"input": "", "output": "", "x": 1}])


def test_plain_json_tests():
    assert decode_tests(TESTS) == [("1 ü €\n", "2"), ("", "")]
    assert decode_tests(" []") == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_packed_tests_of_every_pickle_protocol(protocol):
    assert decode_tests(pack(pickle.dumps(TESTS, protocol))) == decode_tests(TESTS)


@pytest.mark.parametrize("text", ["", "short", "ü€😀\n\\u", "x" * 255, "x" * 256, "long" * 100_000])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickled_strings_come_back(text, protocol):
    assert pickled_str(pickle.dumps(text, protocol)) == text


class Exploit:
    """Its pickle runs a command when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, protocol):
    target = tmp_path / "owned"
    payload = pickle.dumps(Exploit(target), protocol)
    pickle.loads(payload).close()
    assert target.exists(), "the payload itself works"
    target.unlink()
    with pytest.raises(BadRow, match="refused"):
        decode_tests(pack(payload))
    assert not target.exists()


@pytest.mark.parametrize(
    "raw",
    [
        pickle.dumps(["[]"]),
        pickle.dumps(b"[]"),
        pickle.dumps(bytearray(8)),
        pickle.dumps(None),
        pickle.dumps(3),
        b"",
        b"\x80\x04.",
        b"\x80\x04\x8c\x01a\x8c\x01b.",  # two strings
        b"\x80\x04\x8c\x01a0.",  # a string, and the opcode that drops it
        b"\x80\x04X\xff\xff\xff\x7fabc.",  # a string of 2 GiB of which 3 bytes are there
        b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"abc.",
        b"\x80\x04\x8c\x02\xff\xfe.",  # not UTF-8
        pickle.dumps("[]")[:-1],
        b"no pickle",
    ],
)
def test_pickles_of_anything_but_one_string_are_refused(raw):
    with pytest.raises(BadRow):
        pickled_str(raw)


def test_a_memo_index_allocates_nothing():
    tracemalloc.start()
    try:
        assert pickled_str(b"\x80\x02X\x02\x00\x00\x00[]r\xff\xff\xff\x7f.") == "[]"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_decompression_bomb_is_bounded():
    bomb = pack(b"\0" * 100_000_000)
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(BadRow, match="more than 1,000,000 bytes"):
            decode_tests(bomb, max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_bound_itself_is_allowed():
    raw = pickle.dumps(TESTS)
    assert decode_tests(pack(raw), max_bytes=len(raw)) == decode_tests(TESTS)
    with pytest.raises(BadRow, match="more than"):
        decode_tests(pack(raw), max_bytes=len(raw) - 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "do not decompress|end too early"),
        ("no base64!", "neither a JSON list nor base64"),
        ('{"input": "1"}', "neither a JSON list nor base64"),
        ("[1, 2", "not JSON"),
        ("[1]", "test 1 has no input and output"),
        ('[{"input": "1", "output": "2"}, {"input": 1, "output": "2"}]', "test 2 has no input and output"),
        (pack(pickle.dumps(TESTS))[:-40] + "AAAA", "end too early|do not decompress"),
        (base64.b64encode(zlib.compress(pickle.dumps(TESTS))[:-9]).decode(), "end too early"),
        (base64.b64encode(b"no zlib").decode(), "do not decompress"),
        (pack(pickle.dumps('{"input": "1"}')), "a JSON dict, not a list"),
        ("[" * 200_000, "not JSON"),
    ],
)
def test_broken_tests_are_bad_rows(text, reason):
    with pytest.raises(BadRow, match=reason):
        decode_tests(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"func_name": "a b"}', "not the name of a function"),
        ('{"func_name": "class"}', "not the name of a function"),
        ('{"func_name": 3}', "not the name of a function"),
        ('{"split": "validation"}', "metadata.split"),
        ('{"files": ["kit"]}', "metadata.files"),
        ('{"files": {"../kit": "x = 1"}}', "not a module name"),
        ('{"files": {"kit": 1}}', "not a module name"),
        ('{"solution": []}', "metadata.solution"),
    ],
)
def test_broken_metadata_is_a_bad_row(text, reason):
    with pytest.raises(BadRow, match=reason):
        decode_metadata(text)


def test_good_metadata():
    assert decode_metadata("  ") == {}
    assert decode_metadata('{"func_name": null, "split": null, "other": [1]}')["other"] == [1]
    assert decode_metadata('{"files": {"kit": "", "kit2.py": "x"}}')["files"] == {"kit": "", "kit2.py": "x"}


def test_functional_tests_are_json_lines():
    check_functional([('[1, 2]\n"x"', "true"), ("", "null"), ("9" * 5000, "1")])
    with pytest.raises(BadRow, match="test 2: its input is not JSON"):
        check_functional([("1", "1"), ("1\nx", "1")])
    with pytest.raises(BadRow, match="test 1: its output is not JSON"):
        check_functional([("1", "")])


ROW = LCBRow(
    question_id="mini_1",
    title="Double",
    content="Print the `double`.",
    public_tests=(TestCase("1\n", "2"),),
    private_tests=(TestCase("3\n", "6"), TestCase("ü\n", "üü")),
    difficulty="medium",
    files={"kit": "def f():\n    return 1\n"},
    split="heldout",
    solution="print(2 * int(input()))",
    metadata={"kind": "map"},
)


def read_officially(row):
    """LiveCodeBench's own reading of the tests: JSON, and if that fails the packed form."""
    try:
        return json.loads(row["private_test_cases"])
    except ValueError:
        return json.loads(pickle.loads(zlib.decompress(base64.b64decode(row["private_test_cases"].encode("utf-8")))))


@pytest.mark.parametrize("private", ["json", "pickle"])
def test_written_rows_read_back(private):
    row = encode_row(ROW, private=private)
    assert tuple(row) == FIELDS
    assert all(isinstance(value, str) for value in row.values())
    assert json.loads(row["public_test_cases"]) == [{"input": "1\n", "output": "2", "testtype": "stdin"}]
    assert [(t["input"], t["output"]) for t in read_officially(row)] == [("3\n", "6"), ("ü\n", "üü")]
    assert decode_tests(row["private_test_cases"]) == [("3\n", "6"), ("ü\n", "üü")]
    assert row["private_test_cases"].startswith("[") == (private == "json")
    assert json.loads(row["metadata"]) == {
        "files": {"kit": "def f():\n    return 1\n"},
        "split": "heldout",
        "solution": "print(2 * int(input()))",
        "kind": "map",
    }


def test_a_functional_row_says_so_everywhere():
    tests = (TestCase("[1]", "1"),)
    row = encode_row(LCBRow("f", "t", "c", private_tests=tests, func_name="first", platform="leetcode"))
    assert json.loads(row["metadata"]) == {"func_name": "first"}
    assert json.loads(row["private_test_cases"])[0]["testtype"] == "functional"


@pytest.mark.parametrize(
    "changes",
    [
        {"platform": "minicode"},
        {"difficulty": "extreme"},
        {"contest_date": "yesterday"},
        {"func_name": "no name"},
        {"func_name": "f", "private_tests": (TestCase("not json", "1"),)},
        {"split": "validation"},
    ],
)
def test_rows_that_the_readers_would_refuse_are_not_written(changes):
    with pytest.raises(ValueError):
        encode_row(LCBRow(**{**vars(ROW), **changes}))


def test_the_file_is_the_same_to_the_byte_and_complete_or_absent(tmp_path):
    assert write_rows(tmp_path / "a" / "test.jsonl", [ROW, ROW]) == 2
    assert write_rows(tmp_path / "b.jsonl", (row for row in [ROW, ROW])) == 2
    content = (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a" / "test.jsonl").read_bytes() == content
    assert content.count(b"\n") == 2 and content.endswith(b"\n")

    def broken():
        yield ROW
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "b.jsonl", broken())
    assert (tmp_path / "b.jsonl").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b.jsonl"]
