"""The driver is killed while parts of its run are stopped, and can do nothing about it themselves."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest

from tests.helpers.commands import Run

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


def test_stopped_parts_die_with_the_driver(tmp_path):
    run = Run(tmp_path, "run.steps=200", "learner.ranks=1")
    run.wait_for("step   1/200")
    names = ("ray::LearnerRank", "ray::RolloutEngine", "VLLM::EngineCore")
    parts = []
    for process in psutil.Process(run.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # the sandbox's come and go
            if " ".join(process.cmdline()).startswith(names):
                parts.append(process)
    assert len(parts) == 3, parts
    for process in parts:
        process.send_signal(signal.SIGSTOP)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    gone, alive = psutil.wait_procs(parts, timeout=10)
    assert not alive, [process.cmdline() for process in alive]
