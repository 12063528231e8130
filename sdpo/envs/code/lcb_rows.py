"""LiveCodeBench's row format, read and written.

A row is a JSON object whose eleven fields are all strings.  `public_test_cases` is a JSON list of
`{input, output, testtype}`; `private_test_cases` is the same list, or base64 → zlib → pickle of that JSON text.
A problem is functional exactly when `metadata` has a `func_name`; `testtype` decides nothing (LiveCodeBench,
`lcb_runner/benchmarks/code_generation.py`).  `metadata` is otherwise free, and three keys of it have a meaning here:

* `files`: `{module name: source}`, modules that the program may import;
* `split`: `"train"` or `"heldout"`, for the problem split of that name;
* `solution`: a reference program.
"""

from __future__ import annotations

import base64
import binascii
import json
import keyword
import os
import pickle
import pickletools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sandbox import TestCase
from sdpo.envs.rows.files import MAX_LINE_BYTES, BadRow, RowKind, why_not_json

FIELDS = (
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "contest_id",
    "contest_date",
    "starter_code",
    "difficulty",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)
ROWS = RowKind("LiveCodeBench's rows", FIELDS, texts=True)
PLATFORMS = ("leetcode", "codeforces", "atcoder")
DIFFICULTIES = ("easy", "medium", "hard")
MARKS = ("train", "heldout")
METADATA_KEYS = ("func_name", "files", "split", "solution")  # those with a meaning here

# The tests of one official row take tens of megabytes at most; beyond this it is not data but a bomb.
MAX_TEST_BYTES = MAX_LINE_BYTES

_STRING_OPCODES = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_SILENT_OPCODES = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


# ---------------------------------------------------------------------------------------------------------- reading


def decode_tests(text: str, *, max_bytes: int = MAX_TEST_BYTES) -> list[tuple[str, str]]:
    """The (input, output) pairs of a `public_test_cases` or `private_test_cases` field, in order.

    Nothing in the field is ever executed, and no more than `max_bytes` are decompressed.  Raises BadRow.
    """
    if text.lstrip()[:1] != "[":
        text = _unpack(text, max_bytes)
    try:
        cases = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"the tests are not JSON ({why_not_json(error)})") from None
    if not isinstance(cases, list):
        raise BadRow(f"the tests are a JSON {type(cases).__name__}, not a list")
    pairs = []
    for k, case in enumerate(cases, start=1):
        if not isinstance(case, dict) or not all(isinstance(case.get(key), str) for key in ("input", "output")):
            raise BadRow(f"test {k} has no input and output strings")
        pairs.append((case["input"], case["output"]))
    return pairs


def _unpack(text: str, max_bytes: int) -> str:
    try:
        packed = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRow("the tests are neither a JSON list nor base64") from None
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise BadRow(f"the private tests do not decompress ({error})") from None
    if len(raw) > max_bytes:
        raise BadRow(f"the private tests decompress to more than {max_bytes:,} bytes")
    if not inflate.eof:
        raise BadRow("the compressed private tests end too early")
    return pickled_str(raw)


def pickled_str(raw: bytes) -> str:
    """The one string that a pickle holds, found without running the pickle machine.

    The opcodes are read one by one, and any that does something other than to put down a single string ends in
    BadRow.  (An `Unpickler` without globals would still build containers, and preallocates what a memo index asks for.)
    """
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            if opcode.name in _STRING_OPCODES:
                strings.append(str(argument))
            elif opcode.name not in _SILENT_OPCODES:
                raise BadRow(f"the private tests are a pickle of more than one string (opcode {opcode.name}); refused")
    except BadRow:
        raise
    except Exception as error:  # pickletools raises whatever the broken bytes lead to
        raise BadRow(f"the private tests are not a readable pickle ({error})") from None
    if len(strings) != 1:
        raise BadRow(f"the private tests are a pickle of {len(strings)} strings, not of one")
    return strings[0]


def decode_metadata(text: str) -> dict[str, Any]:
    """`metadata` with the keys that have a meaning here checked; empty text is an empty object.  Raises BadRow."""
    try:
        metadata = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadRow(f"metadata is not JSON ({why_not_json(error)})") from None
    if not isinstance(metadata, dict):
        raise BadRow("metadata is not a JSON object")
    name = metadata.get("func_name")
    if name is not None and not (isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)):
        raise BadRow(f"func_name {name!r} is not the name of a function")
    if metadata.get("split") not in (None, *MARKS):
        raise BadRow(f"metadata.split is {metadata['split']!r}, not one of {', '.join(MARKS)}")
    if not isinstance(metadata.get("solution", ""), str):
        raise BadRow("metadata.solution is not a string")
    files = metadata.get("files", {})
    if not isinstance(files, dict):
        raise BadRow("metadata.files is not an object of module name and source")
    for module, source in files.items():
        if not module.removesuffix(".py").isidentifier() or not isinstance(source, str):
            raise BadRow(f"metadata.files: {module!r} is not a module name with its source")
    return metadata


def check_functional(pairs: Iterable[tuple[str, str]]) -> None:
    """Functional tests hold one JSON value per argument line and one JSON value as output.  Raises BadRow."""
    for k, (arguments, output) in enumerate(pairs, start=1):
        lines = (line for line in arguments.split("\n") if line.strip())
        for what, value in [*(("input", line) for line in lines), ("output", output)]:
            try:
                json.loads(value, parse_int=str)  # Python's own limit of 4,300 digits is not the format's
            except (ValueError, RecursionError):
                raise BadRow(f"functional test {k}: its {what} is not JSON: {value[:60]!r}") from None


# ---------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class LCBRow:
    """What a row says, before it is put into the official format.

    `public_tests` and `private_tests` are TestCases, of which `input` and `output` are written.  `func_name` makes the
    problem functional.  `platform` and `difficulty` take the official values only, because LiveCodeBench's own reader
    refuses others.  `contest_date` is ISO 8601.
    """

    question_id: str
    title: str
    content: str
    private_tests: Sequence[TestCase]
    public_tests: Sequence[TestCase] = ()
    contest_date: str = "2025-01-01T00:00:00"
    difficulty: Literal["easy", "medium", "hard"] = "easy"
    platform: Literal["leetcode", "codeforces", "atcoder"] = "codeforces"
    contest_id: str = ""
    starter_code: str = ""
    func_name: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    split: Literal["train", "heldout"] | None = None
    solution: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # further keys


def encode_row(row: LCBRow, *, private: Literal["json", "pickle"] = "json") -> dict[str, str]:
    """The official row: eleven strings.

    `private="pickle"` packs the private tests as the large official files do; its bytes depend on the zlib in use,
    those of `"json"` on nothing.  ValueError for a row that the readers would refuse.
    """
    if row.platform not in PLATFORMS or row.difficulty not in DIFFICULTIES:
        raise ValueError(
            f"{row.question_id}: platform is one of {PLATFORMS} and difficulty one of {DIFFICULTIES}, "
            f"not {row.platform!r} and {row.difficulty!r}"
        )
    datetime.fromisoformat(row.contest_date)
    own = {"func_name": row.func_name, "files": dict(row.files), "split": row.split, "solution": row.solution}
    metadata = {**{key: value for key, value in own.items() if value}, **row.metadata}
    metadata_text = json.dumps(metadata, ensure_ascii=False)
    testtype = "functional" if decode_metadata(metadata_text).get("func_name") else "stdin"
    if testtype == "functional":
        check_functional((t.input, t.output) for t in (*row.public_tests, *row.private_tests))
    private_text = _encode_tests(row.private_tests, testtype)
    if private == "pickle":
        private_text = base64.b64encode(zlib.compress(pickle.dumps(private_text, protocol=4))).decode("ascii")
    return {
        "question_title": row.title,
        "question_content": row.content,
        "platform": row.platform,
        "question_id": row.question_id,
        "contest_id": row.contest_id,
        "contest_date": row.contest_date,
        "starter_code": row.starter_code,
        "difficulty": row.difficulty,
        "public_test_cases": _encode_tests(row.public_tests, testtype),
        "private_test_cases": private_text,
        "metadata": metadata_text,
    }


def _encode_tests(tests: Iterable[TestCase], testtype: str) -> str:
    return json.dumps([{"input": t.input, "output": t.output, "testtype": testtype} for t in tests], ensure_ascii=False)


def write_rows(path: str | Path, rows: Iterable[LCBRow], *, private: Literal["json", "pickle"] = "json") -> int:
    """Write rows as an official JSONL file and return how many.  The file appears only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(encode_row(row, private=private)) + "\n")
                count += 1
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count
