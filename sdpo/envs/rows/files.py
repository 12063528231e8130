"""Rows of a file, whatever kind of file it turns out to be.

JSON Lines, a JSON list and Parquet are read; text may be packed (gzip, bzip2, xz, Zstandard), and be UTF-16 or UTF-32.
What a file is, its content says, not its name; what holds no rows is refused by what it is.  A line ends in a newline
and nowhere else.
"""

from __future__ import annotations

import codecs
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.filekind import HEAD_BYTES, UNPACK, file_kind, text_encoding
from sdpo.errors import UserError

MAX_LINE_BYTES = 512 * 2**20  # one official row of LiveCodeBench takes tens of megabytes
MAX_LIST_BYTES = 8 * MAX_LINE_BYTES  # a JSON list is read whole

Row = dict[str, Any]
Progress = Callable[[str, int, int], None]  # file name, bytes read of it, its size


class BadRow(ValueError):
    """A row that cannot be used; the message is the reason, without file and line."""


Numbered = tuple[str, int, Row | BadRow]  # "line" or "row", which, and the row or what is wrong with it


def why_not_json(error: Exception) -> str:
    """What the parser stumbled over, without a line number that would be mistaken for the file's."""
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)


@dataclass(frozen=True)
class RowKind:
    """What a reader expects of a file."""

    what: str = "rows"  # for messages
    fields: tuple[str, ...] = ()  # names that tell the head of a table from other text that is no JSON
    texts: bool = False  # a table's lists and objects become JSON texts, as rows of strings only have them

    @property
    def expected(self) -> str:
        return f"Expected are {self.what} as JSON Lines (one object a line), a JSON list or Parquet"


ROWS = RowKind()
# Endings that mark the files of a folder as rows; what they are, their content says.
ENDINGS = (
    (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.xz", ".jsonl.zst"),
    (".parquet",),
    (".json", ".json.gz", ".json.bz2", ".json.xz", ".json.zst"),
)
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeError)


def folder_files(folder: Path) -> list[Path]:
    """The files of the first of ENDINGS that the folder has, numbers in their names counted as numbers."""
    for kind in ENDINGS:
        if files := [file for ending in kind for file in folder.glob(f"*{ending}")]:
            return sorted(files, key=_natural)
    return []


def _natural(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name.split(".")[0])]


def read_rows(path: Path, progress: Progress | None = None, kind: RowKind = ROWS) -> Iterator[Numbered]:
    """The rows in order, numbered from 1.  Blank lines are no rows; a table's dates become ISO 8601 texts.

    Raises UserError for a file that cannot be read, or is of no kind that holds rows.
    """
    try:
        with open(path, "rb") as file:
            yield from _rows(path, file, progress, kind)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).  Check the file and its permissions.") from error


def _rows(path: Path, file: io.BufferedReader, progress: Progress | None, rows: RowKind) -> Iterator[Numbered]:
    size = path.stat().st_size
    kind = file_kind(file.peek(HEAD_BYTES)[:HEAD_BYTES])

    def report(share: float | None = None) -> None:
        if progress:
            progress(path.name, file.tell() if share is None else int(share * size), size)

    try:
        if kind == "Parquet":
            yield from _table(file, report, rows)
            return
        stream, packed = _unpacked(file, kind)
        head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
        kind = file_kind(head)
        if kind != "text":
            what = f"{packed}-packed {kind}" if packed else f"no text: a file of kind {kind}"
            raise UserError(f"{path} is {what}.  {rows.expected}; text may be packed by gzip, bzip2, xz or Zstandard.")
        encoding = text_encoding(head)
        _refuse_other_texts(path, head.decode(encoding, "ignore").lstrip(), rows)
        yield from _text_rows(path, stream, encoding, report, rows)
    except (pa.ArrowException, *_DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} is damaged ({kind}: {error}); its download was probably cut off.") from None


def _unpacked(file: io.BufferedReader, kind: str) -> tuple[io.BufferedReader, str]:
    """A stream that can be peeked into, and how it was packed ("": not at all)."""
    if kind in UNPACK:
        return io.BufferedReader(UNPACK[kind](file)), kind
    if kind == "Zstandard":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")), kind
    return file, ""


def _refuse_other_texts(path: Path, text: str, rows: RowKind) -> None:
    """text: how the file begins.  Raises UserError for what no repair of single rows would make right."""
    if text.startswith("version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the data.  Run `git lfs pull` in its repository.")
    first, _, rest = text.partition("\n")
    first = first.strip()
    if first.startswith("<"):
        raise UserError(f"{path} is an HTML or XML page, not the data.  {rows.expected}.")
    columns = any(name in first for name in rows.fields) or re.search(r"[,;\t].*[,;\t]", first)
    if columns and not first.startswith(("{", "[")):
        raise UserError(f"{path} is text, but not JSON: it begins with {first[:60]!r}.  {rows.expected}.")
    if first.startswith("{") and first.endswith(("{", "[", ",")) and rest:
        raise UserError(f"{path} is a JSON object of several lines.  {rows.expected}.")


def _text_rows(
    path: Path, stream: io.BufferedReader, encoding: str, report: Callable[[], None], rows: RowKind
) -> Iterator[Numbered]:
    if encoding != "utf-8-sig":
        lines = _decoded_lines(stream, encoding)
    else:
        if stream.peek(3).startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        lines = _lines(stream)
    number, first = 0, b""
    for number, first in enumerate(lines, start=1):  # noqa: B007 — the first line that is not blank
        if first.strip():
            break
    if first.lstrip().startswith(b"["):
        items, read = _list(path, first, lines, rows)
        if items is not None:
            for k, item in enumerate(items, start=1):
                yield "row", k, _checked(item)
            report()
            return
        lines = iter(read)
    elif first.strip():
        lines = _before(first, lines)
    for k, line in enumerate(lines, start=max(number, 1)):
        if line.strip():
            yield "line", k, _parse(line)
        report()


def _before(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _list(path: Path, first: bytes, rest: Iterator[bytes], rows: RowKind) -> tuple[list[Any] | None, list[bytes]]:
    """The items of a JSON list; or None and all lines, where each of them is a value of its own."""
    read, size = [first], len(first)
    for line in rest:
        read.append(line)
        size += len(line)
        if size > MAX_LIST_BYTES:
            raise UserError(f"{path} is a JSON list of more than {MAX_LIST_BYTES:,} bytes.  Write it as JSON Lines.")
    try:
        return json.loads(b"".join(read)), []
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg.startswith("Extra data"):
            return None, read
        raise UserError(
            f"{path} is a JSON list that cannot be read ({why_not_json(error)}).  {rows.expected}."
        ) from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines of at most MAX_LINE_BYTES; of a longer one its beginning, without a newline."""
    while line := file.readline(MAX_LINE_BYTES):
        yield line
        while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)


def _decoded_lines(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The same, of another encoding, in UTF-8."""
    text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
    while line := text.readline(MAX_LINE_BYTES):
        yield line.encode()
        while len(line) == MAX_LINE_BYTES and not line.endswith("\n"):
            line = text.readline(MAX_LINE_BYTES)


def _parse(line: bytes) -> Row | BadRow:
    try:
        return _checked(json.loads(line))
    except (ValueError, RecursionError) as error:
        if len(line) == MAX_LINE_BYTES:
            return BadRow(f"the row is longer than {MAX_LINE_BYTES:,} bytes")
        if not line.endswith(b"\n"):
            return BadRow("the file ends in the middle of a row; its download was probably cut off")
        return BadRow(f"the row is not JSON ({why_not_json(error)})")


def _checked(row: Any) -> Row | BadRow:
    return row if isinstance(row, dict) else BadRow(f"the row is a JSON {type(row).__name__}, not an object")


def _table(file: BinaryIO, report: Callable[[float], None], rows: RowKind) -> Iterator[Numbered]:
    table = pq.ParquetFile(file)
    number, total = 0, max(1, table.metadata.num_rows)
    for batch in table.iter_batches(batch_size=64):
        for row in batch.to_pylist():
            number += 1
            values = {key: plain(value) for key, value in row.items()}
            yield "row", number, {k: _as_text(v) for k, v in values.items()} if rows.texts else values
        report(number / total)


def plain(value: Any) -> Any:
    """A table's value as JSON has it: dates as ISO 8601 texts, tuples as lists."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _as_text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
