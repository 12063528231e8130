"""One thread per process: tensors are small here, and threads that wait for each other by spinning take the cores from
the processes that tests start.  Ray's workers are as important as the tests beside them, which Ray would put first."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest  # noqa: E402 — after the variable, which libraries read when they are imported


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte."""
    from tests.helpers.prompts import byte_tokenizer

    return byte_tokenizer()


# Tests run in two processes (pytest-xdist).  The tests of a file stay in one of them, and so do those of a folder that
# shares an engine; a file of which each test takes minutes is spread.
ONE_ENGINE = ("tests/rollout/", "tests/end_to_end/")
SPREAD = ("tests/sandbox/test_screen_fuzz.py",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return nodeid if file in SPREAD else next((f for f in ONE_ENGINE if file.startswith(f)), file)

    return ByEngine(config, log)
