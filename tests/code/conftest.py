"""Rows in the official format, made by hand and not by the project's writer."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest


def _tests(pairs, testtype="stdin"):
    return json.dumps([{"input": i, "output": o, "testtype": testtype} for i, o in pairs])


@pytest.fixture(scope="session")
def official_row():
    """Factory: question id and what differs → a row as LiveCodeBench's files hold it."""

    def make(question_id="abc1_a", *, public=(("0\n", "0"),), private=4, packed=False, testtype="stdin", **changes):
        pairs = [(f"{k}\n", f"{k}") for k in range(private)] if isinstance(private, int) else private
        text = _tests(pairs, testtype)
        if packed:
            text = base64.b64encode(zlib.compress(pickle.dumps(text))).decode()
        row = {
            "question_title": "A. Echo",
            "question_content": f"Print what you read. ({question_id})",
            "platform": "atcoder",
            "question_id": question_id,
            "contest_id": "abc1",
            "contest_date": "2025-03-01T12:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": _tests(public, testtype),
            "private_test_cases": text,
            "metadata": "{}",
        }
        return {**row, **changes}

    return make


@pytest.fixture
def write_file(tmp_path):
    """Factory: rows (or raw lines) → a JSONL file in this test's own folder."""

    def write(rows, name="test.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows]
        (tmp_path / name).write_bytes(b"".join(lines))
        return tmp_path / name

    return write
