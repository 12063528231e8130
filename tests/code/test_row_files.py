"""Files of rows are what their content says: read where that holds rows, refused by their kind where it does not."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdpo.envs.code import load_livecodebench
from sdpo.envs.code.lcb_files import find_files
from sdpo.envs.rows.files import read_rows
from sdpo.errors import UserError

ODD = "\u2028\u2029\x85\x0b\x0c\x1c"  # each of them ends a line for str.splitlines


@pytest.fixture
def rows(official_row):
    return [official_row(f"q{i}", question_content=f"a{ODD}b {i}") for i in range(3)]


def lines(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def zstandard(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(content)
    return out.getvalue().to_pybytes()


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("test.jsonl", content)
    return out.getvalue()


def load(path):
    return load_livecodebench(path, test_split="published", problem_split="none", max_bad_rows=0)


READ = {
    "plain": lines,
    "with a byte-order mark": lambda r: b"\xef\xbb\xbf" + lines(r),
    "CRLF": lambda r: lines(r).replace(b"\n", b"\r\n"),
    "blank lines first": lambda r: b"\n \n" + lines(r),
    "gzip": lambda r: gzip.compress(lines(r)),
    "bzip2": lambda r: bz2.compress(lines(r)),
    "xz": lambda r: lzma.compress(lines(r)),
    "Zstandard": lambda r: zstandard(lines(r)),
    "UTF-16": lambda r: lines(r).decode().encode("utf-16"),
    "UTF-16 without a mark": lambda r: lines(r).decode().encode("utf-16-be"),
    "UTF-32": lambda r: lines(r).decode().encode("utf-32"),
    "UTF-16 in gzip": lambda r: gzip.compress(lines(r).decode().encode("utf-16")),
    "a list": lambda r: json.dumps(r).encode(),
    "an indented list": lambda r: json.dumps(r, indent=1).encode(),
    "a list in xz": lambda r: lzma.compress(json.dumps(r).encode()),
    "Parquet": parquet,
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("name", ["data.jsonl", "data.bin"])
def test_a_file_is_read_by_its_content(kind, name, rows, tmp_path):
    (tmp_path / name).write_bytes(READ[kind](rows))
    dataset = load(tmp_path / name)
    assert [p.statement for p in dataset.train] == [row["question_content"] for row in rows]


REFUSED = {
    "a file of kind zip": lambda r: zipped(lines(r)),
    "gzip-packed Parquet": lambda r: gzip.compress(parquet(r)),
    "a file of kind binary": lambda r: b"\x00\x01\x02" * 100,
    "an HTML or XML page": lambda r: b"<!DOCTYPE html>\n<html>Not found</html>\n",
    "text, but not JSON": lambda r: b"question_id,question_title,question_content\n1,2,3\n",
    "a JSON object of several lines": lambda r: json.dumps({"data": r}, indent=1).encode(),
    "a JSON list that cannot be read": lambda r: json.dumps(r).encode()[:-40],
    "is damaged (gzip": lambda r: gzip.compress(lines(r))[:-20],
    "is damaged (xz": lambda r: lzma.compress(lines(r))[:-20],
    "is damaged (Zstandard": lambda r: zstandard(lines(r))[:-20],
    "is damaged (Parquet": lambda r: parquet(r)[:-20],
    "a file of kind Arrow": lambda r: b"ARROW1\0\0" + bytes(100),
    "git lfs pull": lambda r: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_holds_no_rows_is_refused_by_its_kind(kind, rows, tmp_path):
    (tmp_path / "data.jsonl").write_bytes(REFUSED[kind](rows))
    with pytest.raises(UserError) as error:
        load(tmp_path / "data.jsonl")
    assert kind in str(error.value) and "rows cannot be used" not in str(error.value)


def test_a_table_may_hold_dates_lists_and_objects(rows, tmp_path):
    for row in rows:
        row["contest_date"] = datetime.datetime(2025, 3, 1, 12)
        row["private_test_cases"] = json.loads(row["private_test_cases"])
        row["metadata"] = {"split": "train"}
    (tmp_path / "d").write_bytes(parquet(rows))
    problem = load(tmp_path / "d").train[0]
    assert problem.contest_date == "2025-03-01T12:00:00" and len(problem.evaluation_tests) == 4


def test_a_bad_row_of_a_list_is_named_by_its_number(rows, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps([rows[0], 7, rows[1]], indent=1))
    with pytest.raises(UserError, match="d.json, row 2: the row is a JSON int"):
        load(tmp_path / "d.json")


def test_a_folder_without_jsonl_gives_its_next_kind_in_the_order_of_numbers(rows, tmp_path):
    for name in ("train-10.parquet", "train-2.parquet"):
        (tmp_path / name).write_bytes(parquet(rows))
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert [file.name for file in find_files(tmp_path)] == ["train-2.parquet", "train-10.parquet"]
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(lines(rows)))
    assert [file.name for file in find_files(tmp_path)] == ["test.jsonl.gz"]


def test_a_release_beside_a_single_file_is_an_error(tmp_path):
    (tmp_path / "d").touch()
    with pytest.raises(UserError, match="data.release=v6 has no effect"):
        find_files(tmp_path / "d", "v6")


def test_a_line_without_end_in_a_packed_file_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("sdpo.envs.rows.files.MAX_LINE_BYTES", 2**16)
    (tmp_path / "d").write_bytes(gzip.compress(b"x" * 2**24))
    with pytest.raises(UserError, match="the row is longer than 65,536 bytes"):
        load(tmp_path / "d")


@pytest.mark.parametrize("packed", [False, True])
def test_progress_counts_the_bytes_of_the_file(packed, rows, tmp_path):
    content = lines(rows * 50)
    (tmp_path / "d").write_bytes(gzip.compress(content) if packed else content)
    seen = []
    list(read_rows(tmp_path / "d", lambda name, done, size: seen.append((name, done, size))))
    size = (tmp_path / "d").stat().st_size
    assert seen[-1] == ("d", size, size) and all(a[1] <= b[1] for a, b in zip(seen, seen[1:], strict=False))
