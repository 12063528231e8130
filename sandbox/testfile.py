"""Read programs and tests from files, for the command.

Text is UTF-8, or UTF-16 and UTF-32 where it says so, and may be packed by gzip, bzip2 or xz; anything else is refused
by what it is.
"""

from __future__ import annotations

import io
import json
import lzma
import zlib
from pathlib import Path

from .errors import BadTests
from .extract import extract_code
from .filekind import HEAD_BYTES, UNPACK, file_kind, text_encoding
from .types import TestCase


def _read_text(path: Path, errors: str = "strict") -> str:
    """The whole file as text.  Raises BadTests, with what the file is where it is no text."""
    try:
        content = path.read_bytes()
        if (kind := file_kind(content[:HEAD_BYTES])) in UNPACK:
            content = UNPACK[kind](io.BytesIO(content)).read()
            kind = file_kind(content[:HEAD_BYTES])
        if kind not in ("text", "binary"):
            raise BadTests(f"{path} is a {kind} file; expected text (a program, or JSON), plain or packed by gzip")
        return content.decode(text_encoding(content[:HEAD_BYTES]), errors)
    except OSError as error:
        raise BadTests(f"cannot read {path}: {error.strerror or error}") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise BadTests(f"cannot read {path}: its {kind} data is damaged ({error})") from None
    except UnicodeDecodeError as error:
        raise BadTests(f"cannot read {path}: {error}") from None


def read_tests(path: Path) -> list[TestCase]:
    """A JSON list of {input, output, testtype, fn_name}, or {"tests": [...], "fn_name": …}.  Raises BadTests."""
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadTests(f"{path} is not JSON: {error}; expected a list of objects with input and output") from None
    return parse_tests(content, str(path))


def parse_tests(content: object, where: str) -> list[TestCase]:
    """Tests from decoded JSON.  Raises BadTests."""
    fn_name = None
    if isinstance(content, dict):
        fn_name = content.get("fn_name")
        content = content.get("tests")
    if not isinstance(content, list) or not content:
        raise BadTests(f"{where}: expected a list of at least one test, each an object with input and output")
    tests = []
    for number, item in enumerate(content, 1):
        if not isinstance(item, dict):
            raise BadTests(f"{where}: test {number} is no object; one with input and output is needed")
        try:
            name = item.get("fn_name", fn_name)
            kind = item.get("testtype", "functional" if name else "stdin")
            tests.append(TestCase(item["input"], item["output"], kind, name))
        except KeyError as error:
            raise BadTests(f"{where}: test {number} lacks {error}: an object with input and output is needed") from None
    return tests


def read_program(path: Path) -> str | None:
    """A program's source; from a Markdown response (.md) its code block, None where there is none."""
    # Bytes that are not UTF-8 become lone surrogates, which no compiler accepts: a compile error, not a crash.
    text = _read_text(path, "surrogateescape")
    return extract_code(text) if path.suffix == ".md" else text


def find_programs(path: Path, tests: Path | None) -> list[tuple[str, str | None, list[TestCase]]]:
    """(name, code, tests) of a program, of every .py and .md file in a directory, or of every line of a JSONL file.

    In a directory, `NAME.tests.json` beside a program takes precedence over the common `tests`.  A JSONL line holds
    `code` (or `response`), optionally `name` and `tests`.
    """
    common = read_tests(tests) if tests is not None else None
    if path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.xz")):
        return _from_lines(path, common)
    files = sorted(p for p in path.iterdir() if p.suffix in (".py", ".md")) if path.is_dir() else [path]
    if not files:
        raise BadTests(f"{path} holds no .py or .md file")
    found = []
    for file in files:
        own = file.with_name(file.stem + ".tests.json")
        chosen = read_tests(own) if own.exists() else common
        if chosen is None:
            raise BadTests(f"no tests for {file}: give --tests, or put {own.name} beside it")
        found.append((file.name, read_program(file), chosen))
    return found


def _from_lines(path: Path, common: list[TestCase] | None) -> list[tuple[str, str | None, list[TestCase]]]:
    found = []
    # A line ends in a newline and nowhere else: JSON strings may hold every other separator (U+2028, U+0085, …).
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            item = json.loads(line)
            code = item["code"] if "code" in item else extract_code(item["response"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadTests(f"{where}: expected a JSON object with code or response ({error})") from None
        tests = parse_tests(item["tests"], where) if "tests" in item else common
        if tests is None:
            raise BadTests(f"{where}: no tests; put them in the line or give --tests")
        found.append((str(item.get("name", number)), code, tests))
    if not found:
        raise BadTests(f"{path} holds no program")
    return found
