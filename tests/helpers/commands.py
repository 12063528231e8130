"""`sdpo train` as a user starts it, and everything that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from studies.faults.process import MARK, marked

SDPO = [sys.executable, "-m", "sdpo.cli"]
COMMAND = [
    *SDPO, "train", "livecodebench", "--profile", "cpu", "run.questions=4", "run.steps=3",
    "evaluation.every=0", "evaluation.at_start=false", "evaluation.samples=1", "evaluation.ks=[1]",
    "name=livecodebench-sdpo-seed0",
]  # fmt: skip


class Run:
    """The command in a session of its own, its output, and every process that descends from it."""

    started: ClassVar[list[Run]] = []  # those of a test, which ends with them (tests/commands/conftest.py)

    def __init__(self, folder: Path, *overrides: str, address: str | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.log = folder / f"log-{self.mark}"
        environment = {**os.environ, MARK: self.mark, "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}
        environment.pop("RAY_ADDRESS", None)
        if address is not None:
            environment["RAY_ADDRESS"] = address
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *overrides], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(self)

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

    def kill(self) -> None:
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def end(self) -> int:
        status = self.process.wait(timeout=300)
        deadline = time.monotonic() + 20
        while left := self.descendants():
            assert time.monotonic() < deadline, f"left behind: {[p.cmdline() for p in left]}\n{self.output}"
            time.sleep(0.2)
        return status

    def descendants(self) -> list[psutil.Process]:
        return list(marked(self.mark))
