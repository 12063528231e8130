"""One thread per process: tensors are small here, and threads that wait for each other by spinning take the cores from
the processes that tests start.  Ray's workers are as important as the tests beside them, which Ray would put first.

What a shell starts in the background is deaf to Ctrl-C, what nohup starts to SIGHUP, and both hand that on to their
children.  A handler is not handed on: with one, whatever a test starts hears both.
"""

from __future__ import annotations

import os
import signal
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")  # an engine's imports vLLM before it registers
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

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
