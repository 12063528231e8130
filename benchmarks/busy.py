"""A learner step beside 0, 1, 2 and 4 busy neighbours: how much slower than the lost processor time explains.

A neighbour is a process that computes without end.  With n threads and k neighbours on C cores, each thread's fair
share of a core is C / (n + k), so that a step may take (n + k) / C times as long as alone, where that is more than 1.
Each side is a learner in a process of its own, on the same responses, with n = 2 threads or one; only one of them has
work at a time.  "÷ explained" is what is left to the way in which threads wait for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.common import ROOT, Record, interleave, medians, parser
from sdpo.config.waiting import NAMES, waiting

BOUND = 1.5  # slower than alone, of what the lost processor time explains
NEIGHBOURS = (0, 1, 2, 4)
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
    middle, rows, factors = medians(samples), [], {}
    for name, (threads, _) in sides.items():
        alone = middle[f"{name}, 0"]["seconds"]
        for neighbours in NEIGHBOURS:
            seconds = middle[f"{name}, {neighbours}"]["seconds"]
            explained = max(1.0, (threads + neighbours) / cores)
            factors[f"{name}, {neighbours}"] = seconds / alone / explained
            cells = [f"{1000 * seconds:.0f}", f"{seconds / alone:.2f}", f"{explained:.2f}"]
            rows.append([name, str(neighbours), *cells, f"{seconds / alone / explained:.2f}"])
    worst = max(factors[f"{SET}, {n}"] for n in NEIGHBOURS)
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
