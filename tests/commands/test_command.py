"""`sdpo train` as a user runs it: interrupted, resumed, finished, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from tests.helpers.processes import heeds_interrupts

pytestmark = pytest.mark.timeout(600)

SDPO = [sys.executable, "-m", "sdpo.cli"]
COMMAND = [
    *SDPO, "train", "livecodebench", "--profile", "cpu", "run.questions=4", "run.steps=3",
    "evaluation.every=0", "evaluation.at_start=false", "evaluation.samples=1", "evaluation.ks=[1]",
]  # fmt: skip


class Run:
    """The command in a session of its own, its output, and every process that descends from it."""

    def __init__(self, folder: Path, *overrides: str, address: str | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.log = folder / f"log-{self.mark}"
        environment = {**os.environ, "SDPO_TEST_MARK": self.mark, "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}
        environment.pop("RAY_ADDRESS", None)
        if address is not None:
            environment["RAY_ADDRESS"] = address
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *overrides], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=heeds_interrupts,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str) -> None:
        while text not in self.output:
            assert self.process.poll() is None, f"ended before it said {text!r}:\n{self.output}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C as a terminal sends it: to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        status = self.process.wait(timeout=300)
        deadline = time.monotonic() + 20
        while left := self._descendants():
            assert time.monotonic() < deadline, f"left behind: {[p.cmdline() for p in left]}\n{self.output}"
            time.sleep(0.2)
        return status

    def _descendants(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SDPO_TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def test_interrupted_resumed_finished_and_left_alone(tmp_path):
    first = Run(tmp_path)
    first.wait_for("step 1/3")
    first.interrupt()
    assert first.end() == 130, first.output
    assert "is saved in" in first.output and "Traceback" not in first.output

    second = Run(tmp_path)
    assert second.end() == 0, second.output
    assert "Resuming" in second.output and "after step" in second.output and "Finished." in second.output
    folder = tmp_path / "runs" / "livecodebench-sdpo-seed0"
    assert (folder / "report.html").is_file()
    assert sorted(p.name for p in (folder / "rollouts").iterdir()) == [f"step-{i:06d}.parquet" for i in (1, 2, 3)]

    third = Run(tmp_path)
    assert third.end() == 0
    assert "is finished; nothing to do" in third.output and "--fresh" in third.output

    other = Run(tmp_path, "learner.lr=1e-7", "name=livecodebench-sdpo-seed0")
    assert other.end() == 2 and "→ 1e-07" in other.output and "--fork" in other.output


@pytest.mark.slow
def test_interrupted_while_the_parts_start(tmp_path):
    run = Run(tmp_path)
    run.wait_for("starting DeepSpeed ranks")
    time.sleep(2)
    run.interrupt()
    assert run.end() == 130, run.output
    assert "Stopped by SIGINT" in run.output and "Traceback" not in run.output


@pytest.mark.slow
def test_a_profile_tells_where_time_and_memory_went(tmp_path):
    command = [*SDPO, "profile", "livecodebench", "--profile", "cpu", "--steps", "1", "run.questions=4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("mean of 1", "generate", "update", "engines at work", "peak, largest rank", "aten::mm"):
        assert said in done.stdout
    assert not any(tmp_path.iterdir())  # it leaves no run folder behind
