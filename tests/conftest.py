"""One thread per process: tensors are small here, and threads that wait for each other by spinning take the cores from
the processes that tests start."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402 — after the variable, which libraries read when they are imported


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte."""
    from tests.helpers.prompts import byte_tokenizer

    return byte_tokenizer()
