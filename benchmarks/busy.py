"""A learner step beside 0, 1, 2 and 4 busy neighbours: how much slower than the lost processor time explains.

A neighbour is a process that computes without end.  With n threads and k neighbours on C cores, each thread's fair
share of a core is C / (n + k), so that a step may take (n + k) / C times as long as alone, where that is more than 1.
Each side is a learner in a process of its own, on the same responses, with n = 2 threads or one; only one of them has
work at a time.  "÷ explained" is what is left to the way in which threads wait for each other.

Then whole steps of `sdpo train`, whose engine and learner take turns with one thread each (n = 1): the neighbours begin
after some steps, and a step beside them is compared with one before.  One side leaves Ray's workers as nice as Ray
makes them (15), and has 2 neighbours only, since a step then takes a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import ROOT, Record, interleave, medians, parser, progress
from sdpo.config.waiting import NAMES, waiting
from sdpo.tracking.metrics_file import read_metrics

BOUND = 1.5  # slower than alone, of what the lost processor time explains
NEIGHBOURS = (0, 1, 2, 4)
RUN, NICE = "whole run, 1 thread each", "whole run, Ray's own niceness"
STEPS = 5, 4  # of a whole run, alone and beside its neighbours; the first of each is not counted
SPINNING, SET, ONE = "2 threads, libgomp's own", "2 threads, as sdpo sets it", "1 thread"


def main() -> int:
    options = parser(__doc__, repeats=7)
    options.add_argument("--work", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    options.add_argument("--try", dest="tried", action="append", default=[], metavar="NAME=VALUE", help="another side")
    args = options.parse_args()
    if args.work is not None:
        return _work(args.work, args.small)
    record = Record("busy", args)
    sides = {SPINNING: (2, {}), SET: (2, waiting({})), ONE: (1, {})}
    sides |= {f"2 threads, {given}": (2, dict([given.split("=", 1)])) for given in args.tried}
    cores = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        learners = {
            name: stack.enter_context(_learner(threads, variables, args.small))
            for name, (threads, variables) in sides.items()
        }
        samples = {}
        for neighbours in NEIGHBOURS:
            with _busy(neighbours):
                asked = {name: lambda learner=learner: _step(learner) for name, learner in learners.items()}
                for name, found in interleave(asked, args.repeats).items():
                    samples[f"{name}, {neighbours}"] = found
    rows: list[list[str]] = []
    factors: dict[str, float] = {}

    def add(name: str, threads: int, neighbours: int, alone: float, seconds: float) -> None:
        explained = max(1.0, (threads + neighbours) / cores)
        factors[f"{name}, {neighbours}"] = seconds / alone / explained
        cells = [f"{1000 * seconds:.0f}", f"{seconds / alone:.2f}", f"{explained:.2f}"]
        rows.append([name, str(neighbours), *cells, f"{seconds / alone / explained:.2f}"])

    middle = medians(samples)
    for name, (threads, _) in sides.items():
        for neighbours in NEIGHBOURS:
            add(name, threads, neighbours, *(middle[f"{name}, {n}"]["seconds"] for n in (0, neighbours)))
    runs = {} if args.small else {RUN: NEIGHBOURS[1:], NICE: (2,)}
    for name, counts in runs.items():
        for neighbours in counts:
            progress(f"{name}, {neighbours} neighbours")
            own = {} if name == RUN else {"RAY_worker_niceness": "15"}
            samples[f"{name}, {neighbours}"] = _whole_steps(own, neighbours)
            alone, beside = (statistics.median(row.values()) for row in samples[f"{name}, {neighbours}"])
            add(name, 1, neighbours, alone, beside)
    worst = max(factors[f"{side}, {n}"] for side in (SET, *runs) if side != NICE for n in NEIGHBOURS[side != SET :])
    idle = middle[f"{SET}, 0"]["seconds"] / middle[f"{SPINNING}, 0"]["seconds"]
    record.finish(
        ["learner", "busy neighbours", "ms per step", "÷ alone", "explained", "÷ explained"],
        rows,
        [
            f"As sdpo sets it, at most {worst:.2f} × what the lost processor time explains (bound {BOUND:g}); alone it "
            f"takes {idle:.2f} × the step of spinning threads.",
            f"{cores} cores; medians of {args.repeats} steps, the sides in turn.",
        ],
        samples=samples,
        factors=factors,
        bound_met=worst <= BOUND,
        alone_ratio=idle,
    )
    return 0


@contextlib.contextmanager
def _learner(threads: int, variables: dict[str, str], small: bool) -> Iterator[subprocess.Popen]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"OMP_NUM_THREADS": str(threads), "DS_ACCELERATOR": "cpu"} | variables
    command = [sys.executable, "-m", "benchmarks.busy", "--work", str(threads), *(["--small"] if small else [])]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **given) as process:
        try:
            _answer(process)
            yield process
        finally:
            process.kill()


def _whole_steps(variables: dict[str, str], neighbours: int) -> list[dict[str, float]]:
    """Seconds of the steps of a run that are counted, by number: alone, and beside so many neighbours."""
    alone, beside = STEPS
    first = 2  # begins with what is allocated once
    settings = [f"run.steps={first + alone + beside}", "run.checkpoint_every=1000", "evaluation.every=0", "name=run"]
    settings += ["evaluation.at_start=false", "evaluation.samples=1", "evaluation.ks=[1]", "tracking.wandb=disabled"]
    command = [sys.executable, "-m", "sdpo.cli", "train", "livecodebench", "--profile", "cpu", *settings]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [*command, f"run.directory={folder}"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.match(rf"step\s+{first + alone}/", line):
                stack.enter_context(_busy(neighbours))
            if re.match(rf"step\s+{first + alone + beside}/", line):
                stack.close()
        if process.wait() != 0:
            raise RuntimeError(f"{shlex.join(command[1:])} failed:\n{''.join(lines)[-3000:]}")
        rows = [row for row in read_metrics(Path(folder) / "run" / "metrics.jsonl") if "train/pass_rate" in row]
    clock = {row["step"]: row["wall_clock_s"] for row in rows}
    seconds = {step: clock[step] - clock[step - 1] for step in clock if step - 1 in clock}
    last = first + alone
    counted = range(first + 1, last + 1), range(last + 2, last + beside + 1)
    return [{str(step): seconds[step] for step in steps} for steps in counted]


def _step(process: subprocess.Popen) -> dict[str, float]:
    process.stdin.write("step\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: subprocess.Popen) -> dict[str, float]:
    for line in process.stdout:
        if line.startswith("{"):  # DeepSpeed prints, too
            return json.loads(line)
    raise RuntimeError(f"the learner ended:\n{process.stderr.read()[-3000:]}")


def _work(threads: int, small: bool) -> int:
    """The learner's process: a line of seconds for every line that it reads."""
    from benchmarks.common import timed
    from benchmarks.learner import dealt, start_worker, step
    from benchmarks.responses import sampled_groups, samples_of
    from sdpo.config.files import find_recipe, load_recipe

    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", (f"learner.cpu_threads={threads}",))
    samples = samples_of(recipe, sampled_groups(recipe, *(2, 2) if small else (16, 4)))
    worker, (micro_batches,) = start_worker(recipe), dealt(recipe, samples)
    for _ in range(2):  # what is built once
        step(worker, micro_batches)
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(lambda: step(worker, micro_batches))), flush=True)
    return 0


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
