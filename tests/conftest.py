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


# Tests run in two processes.  What shares one engine stays in one of them, and so does a file.
ONE_ENGINE = ("rollout", "end_to_end")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            folder = item.path.parent
            item.add_marker(pytest.mark.xdist_group(folder.name if folder.name in ONE_ENGINE else str(item.path)))
