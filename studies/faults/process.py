"""The command of a run in a process of its own: what it announces, which processes belong to it, what is left of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from studies.own_package import environment

MARK = "SDPO_FAULTS_MARK"  # in the environment of everything that the command starts
LIMIT_S = 600.0  # without a word: it hangs
_LOOK_S = 0.01

Line = dict[str, Any]  # of `announced`


class NotThere(Exception):
    """What is to be struck is none of the processes."""


class Hangs(Exception):
    """The command has said nothing for LIMIT_S."""


def _hears_signals() -> None:
    """What a shell starts in the background is deaf to Ctrl-C, what nohup starts to SIGHUP; both hand that on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def marked(mark: str) -> Iterator[psutil.Process]:
    """Every process that lives and has MARK=mark in the environment that it began with."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


class Command:
    """`words`: the arguments of `sdpo`; `runs`: where its output and what it announces are kept.

    with Command(words, runs) as command: it is started by `start`, again and again, and killed at the end.
    """

    def __init__(self, words: list[str], runs: Path) -> None:
        self.words, self.log, self.poison = words, runs / "train.log", runs / "poison"
        self.lines: list[Line] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._announced = runs.with_suffix(".jsonl")  # beside it: a full disk would tear its lines
        self._read_to = 0  # bytes of it
        self._seen = 0  # lines that `next` has given
        self._log_begins = 0  # … of the command that runs
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"

    def __enter__(self) -> Command:
        self._temporary = Path("/tmp") / f"f{os.getpid()}"  # a short name: sockets have theirs in it
        self._temporary.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in marked(self._mark):
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self) -> None:
        """Unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        for _ in self._new():  # left from the command before this one, of which it says nothing
            pass
        given = environment(**{MARK: self._mark, "TMPDIR": str(self._temporary)})
        program = [sys.executable, "-m", "studies.faults.announced", str(self._announced), str(self.poison)]
        with self.log.open("a") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(
                [*program, *self.words], env=given, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_hears_signals,
            )  # fmt: skip

    def end(self, number: int) -> int:
        """Signal it and wait.  Returns its exit status; Hangs where there is none."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Hangs from None

    def next(self, wanted: Callable[[Line], bool]) -> Line | None:
        """The next such line, waited for.  None: the command has ended.  Raises Hangs."""
        assert self.process is not None
        deadline = time.monotonic() + LIMIT_S
        while True:
            ended = self.process.poll() is not None  # before the last look at what it said
            for line in self._new():
                if wanted(line):
                    return line
                deadline = time.monotonic() + LIMIT_S
            if ended:
                return None
            if time.monotonic() > deadline:
                self.process.kill()
                raise Hangs
            time.sleep(_LOOK_S)

    def _new(self) -> Iterator[Line]:
        if self._announced.is_file():
            with self._announced.open("rb") as file:
                file.seek(self._read_to)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(newline)
            self.lines += map(json.loads, whole.splitlines())
        while self._seen < len(self.lines):
            self._seen += 1
            yield self.lines[self._seen - 1]

    @property
    def complete(self) -> int:
        """Steps that were complete when it last said something."""
        return next((line["complete"] for line in reversed(self.lines) if "complete" in line), 0)

    @property
    def last_words(self) -> str:
        """The error with which the present command ended, or its last line."""
        said = self.log.read_bytes()[self._log_begins :].decode(errors="replace")
        lines = [line for line in said.splitlines() if line.strip()]
        return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "")

    def find(self, name: str) -> int:
        """The number of a process of it, by its name or a file on its command line.  Raises NotThere."""
        assert self.process is not None
        found: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
        for process in found:
            with suppress(psutil.Error):
                if process.name() == name or any(word.endswith(f"/{name}") for word in process.cmdline()[:6]):
                    return process.pid
        raise NotThere(f"there was no {name} among its processes")

    def left(self) -> list[str]:
        """The processes and temporary files that it has not cleared away yet."""
        found = [path.name for path in self._temporary.iterdir()]
        for process in marked(self._mark):
            with suppress(psutil.Error):  # it has just ended
                found.append(" ".join(process.cmdline())[:60])
        return found
