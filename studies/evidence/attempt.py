"""One attempt at a run: the user's own command in a process of its own, its output in the run's folder."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdpo.config.paths import PROJECT
from sdpo.tracking import provenance
from sdpo.tracking.run_info import now
from studies.evidence.studies import RunSpec
from studies.own_package import environment

LOG, ATTEMPTS = "train.log", "attempts.jsonl"
PROGRAM = (sys.executable, "-m", "sdpo.cli")  # `sdpo`, of this interpreter
STOPPED = 130  # exit status of a run that was stopped by the user
_POLL_S = 0.5


def arguments(spec: RunSpec, folder: Path) -> list[str]:
    """The run as arguments of `sdpo`."""
    return [
        *("train", spec.recipe, "--algorithm", spec.algorithm, "--profile", spec.profile),
        *(f"name={folder.name}", f"run.directory={folder.parent}"),
        *spec.common,
        *spec.overrides,
    ]


def command(spec: RunSpec, folder: Path) -> str:
    """The run as a user types it."""
    return shlex.join(["sdpo", *arguments(spec, folder)])


def attempt(spec: RunSpec, folder: Path, tick: Callable[[], None], program: Sequence[str] = PROGRAM) -> int:
    """Start or resume the run of `folder` and wait for its end.  Returns its exit status; STOPPED after Ctrl-C.

    `tick` is called twice a second.  SIGINT and SIGTERM reach the run as Ctrl-C: the first saves its last complete
    step, the second ends it at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = arguments(spec, folder)
    started, clock = now(), time.monotonic()
    with (folder / LOG).open("a") as log:
        log.write(f"\n== {started} {shlex.join(['sdpo', *words])}\n")
        log.flush()
        with _forwarded() as (forward_to, stopped):
            process = subprocess.Popen(
                [*program, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,  # a terminal's Ctrl-C comes to us, and goes on to the run exactly once
            )
            forward_to(process)
            while process.poll() is None:
                tick()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
    status = STOPPED if stopped() else process.returncode
    _note(folder, started, time.monotonic() - clock, status)
    return status


@contextmanager
def _forwarded() -> Iterator[tuple[Callable[[subprocess.Popen[bytes]], None], Callable[[], bool]]]:
    """SIGINT and SIGTERM go to a process: yields a function that names it, and one that says whether a signal came.

    Begun before the process is: a shell's background job ignores SIGINT, and would pass that on to its children.
    """
    processes: list[subprocess.Popen[bytes]] = []
    came = []

    def forward(number: int, frame: object) -> None:
        came.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield processes.append, lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(folder: Path, started: str, elapsed_s: float, status: int) -> None:
    row = {
        "started": started,
        "ended": now(),
        "elapsed_s": round(elapsed_s, 1),
        "exit_status": status,
        "commit": provenance.commit().split()[0],
        "changes": changed_files(),
        "hardware": provenance.hardware(),
    }
    with (folder / ATTEMPTS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def attempts(folder: Path) -> list[dict[str, Any]]:
    """What `attempt` noted, in order."""
    path = folder / ATTEMPTS
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.is_file() else []


def changed_files() -> list[str]:
    """Tracked files that differ from the commit; documents, which no run reads, apart."""
    git = ["git", "-C", str(PROJECT), "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]
    done = subprocess.run(git, capture_output=True, text=True)
    return [line[3:] for line in done.stdout.splitlines()] if done.returncode == 0 else []


def last_words(folder: Path, lines: int = 3) -> str:
    """The end of the log, for the reason why a run failed."""
    path = folder / LOG
    text = [line.strip() for line in path.read_text().splitlines() if line.strip()] if path.is_file() else []
    errors = [line for line in text if line.startswith("error:")][-1:]
    said = errors[0] if errors else " / ".join(text[-lines:])
    return said.replace(f"{PROJECT}{os.sep}", "").replace(str(Path.home()), "~")[:600]
