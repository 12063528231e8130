"""Any rows give tasks and a report that accounts for each of them, or a message."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import strategies as st

from sdpo.config.sections import ColumnSettings
from sdpo.envs.choice import choice_task
from sdpo.envs.code.assertion_rows import acecode, humaneval, kodcode, mbpp
from sdpo.envs.code.lcb_rows import decode_metadata, decode_tests
from sdpo.envs.math import math_task
from sdpo.envs.rows import BadRow, make_task
from sdpo.envs.rows.files import read_rows
from sdpo.errors import UserError
from sdpo.types import Task
from tests.helpers.properties import holds_for

NAMES = [
    "prompt", "messages", "question", "answer", "solution", "id", "difficulty", "split", "choices", "options", "role",
    "content", "task_id", "test", "entry_point", "canonical_solution", "test_list", "test_setup_code", "code", "text",
    "test_info", "function_name", "tests", "test_cases", "question_id", "metadata", "input", "output", "testtype",
]  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=8), st.sampled_from(["user", "assistant", "system", "A", "B", "1/2", "def f(x): return x", "f",
    "assert f(1) == 1", "def check(candidate):\n    assert candidate(1) == 1", "def test_f():\n    assert f(1) == 1",
    "\ud800", "\x00", "[]", "{}", "NaN", "from solution import f"]))  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | WORDS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(NAMES) | WORDS, VALUES, max_size=8)


@holds_for(60, 3000, row=ROWS)
def test_any_row_is_a_task_or_says_why_not(row):
    columns = ColumnSettings()
    for made in (make_task, math_task, choice_task):
        try:
            task = made(row, columns)
        except BadRow as error:
            assert str(error)
        else:
            assert isinstance(task, Task) and task.messages
            task.messages[-1]["content"].encode()  # no half characters
    for source in (humaneval, mbpp, kodcode, acecode):
        try:
            source(row, 1)
        except BadRow as error:
            assert str(error)


@holds_for(60, 5000, text=WORDS | VALUES.map(lambda value: json.dumps(value)))
def test_any_text_of_tests_is_decoded_or_refused(text):
    for decode in (decode_tests, decode_metadata):
        try:
            decode(text)
        except BadRow as error:
            assert str(error)


LINES = st.lists(ROWS.map(json.dumps) | WORDS | st.just(""), max_size=5)


@holds_for(60, 2000, lines=LINES, broken=st.binary(max_size=20), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_file_is_read_line_by_line_or_refused(lines, broken, ending):
    data = ending.join(lines).encode(errors="surrogatepass") + broken
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(data)
        try:
            for *_, row in read_rows(path):
                assert isinstance(row, dict | BadRow)
        except UserError as error:
            assert str(error)
