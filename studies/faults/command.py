"""`python -m studies faults`: an undisturbed run, the same run struck, and the table of what came of it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.tracking import provenance
from studies.faults import strikes
from studies.faults.compare import differences
from studies.faults.strikes import Strike
from studies.faults.struck_run import StruckRun
from studies.faults.table import write_page
from studies.own_package import environment

RESULTS = Path("docs/results/faults")
NAME = "run"
SIZES = (
    "run.questions=4", "rollout.responses=4", "run.checkpoint_every=2", "run.max_restarts=1000", "learner.zero_stage=2",
    "evaluation.every=4", "evaluation.at_start=false", "evaluation.training_problems=false",
    "evaluation.samples=1", "evaluation.ks=[1]",
)  # fmt: skip


RANKS = {"short": 1, "grid": 2, "random": 2}


def run_faults(options: argparse.Namespace) -> int:
    """Make the runs of one kind, write its record and the table.  Returns 1 where something was not as promised."""
    planned, steps = plan(options.kind, options.seed)
    if os.geteuid() and any(strike.part == strikes.DISK for strike in planned):
        print("Full disks are left out: to mount a small file system needs root.", flush=True)
        planned = [strike for strike in planned if strike.part != strikes.DISK]
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started ends with us, also in the background
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    found = make(planned, steps, RANKS[options.kind], Path(options.runs) / options.kind, options.minutes * 60)
    record = {
        "kind": options.kind,
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "command": f"python -m studies faults {options.kind} --seed {options.seed} --minutes {options.minutes:g}",
        "date": date.today().isoformat(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        **found,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{options.kind}.json").write_text(json.dumps(record, indent=1) + "\n")
    write_page(RESULTS)
    wrong = [outcome for outcome in found["outcomes"] if outcome["wrong"]]
    print(f"{len(found['outcomes'])} strikes, {len(wrong)} not as promised; "
          f"{'equal to the undisturbed run' if not found['differences'] else 'DIFFERS from the undisturbed run'}: "
          f"{RESULTS}/{options.kind}.json, docs/reliability.md")  # fmt: skip
    return int(bool(wrong or found["differences"]))


def plan(kind: str, seed: int) -> tuple[list[Strike], int]:
    """The strikes, and how many steps the run needs for them."""
    if kind == "random":
        return strikes.at_random(30, 60, seed), 60
    planned = strikes.short() if kind == "short" else strikes.grid()
    # A phase that comes every 4 steps costs up to 4, any other strike 1 or 2.
    return planned, 6 if kind == "short" else 3 * len(planned)


def make(planned: list[Strike], steps: int, ranks: int, runs: Path, seconds: float) -> dict[str, Any]:
    """Strike a run for at most so long, and compare it with one that is left alone."""
    runs = runs.absolute()
    whole = _undisturbed(arguments(steps, ranks, runs / "whole"), runs / "whole")
    with _small_disk(runs / "struck", any(strike.part == strikes.DISK for strike in planned)) as place:
        words = [*arguments(steps, ranks, place), "run.asynchronous_checkpoints=true"]
        run = StruckRun(words, place, NAME, lambda line: print(line, flush=True))
        run.make(planned, time.monotonic() + seconds)
        return {
            "steps": steps,
            "planned": len(planned),
            "outcomes": [outcome.as_dict() for outcome in run.outcomes],
            "differences": differences(whole, place / NAME),
        }


def arguments(steps: int, ranks: int, runs: Path) -> list[str]:
    """Of `sdpo`, for the run that is struck, or left alone."""
    return [
        *("train", "livecodebench", "--profile", "cpu", *SIZES),
        *(f"name={NAME}", f"run.steps={steps}", f"learner.ranks={ranks}", f"run.directory={runs}"),
    ]


def _undisturbed(words: list[str], runs: Path) -> Path:
    print(f"the undisturbed run: {runs / NAME}", flush=True)
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sdpo.cli", *words]
    with (runs / "train.log").open("a") as log:
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if done.returncode:
        raise UserError(f"The undisturbed run ended with status {done.returncode}; its output: {runs / 'train.log'}")
    return runs / NAME


@contextmanager
def _small_disk(folder: Path, wanted: bool) -> Iterator[Path]:
    """An empty folder; where wanted, on a file system of its own that can be filled."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds an earlier struck run: remove it, or give another place with --runs.")
    folder.mkdir(parents=True, exist_ok=True)
    if wanted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "sdpo-faults", folder], check=True)
    try:
        yield folder
    finally:
        if wanted:
            subprocess.run(["umount", "--lazy", folder], check=True)
