"""From the command to the first step, and from the last row to the prompt: where the time of a short run goes.

Runs `sdpo train livecodebench --profile cpu` for 3 steps, in folders of their own, and times the lines that it prints,
the rows that it writes and its end.  Start-up ends where the run's own clock begins (`wall_clock_s`).  The first run
is not counted: it may build an operator, and reads packages from the disk.  Core seconds are what the whole machine
was busy for meanwhile, so that they say what a phase costs only where nothing else runs.

--against CHECKOUT runs that folder's code as well, in turn with this one's, and prints the ratio.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.common import ROOT, Record, interleave, jiffies, median_ratio, parser
from sdpo.tracking.metrics_file import read_metrics

BOUNDS = {"start": 15.0, "end": 3.0}  # seconds, on 2 cores with nothing else to do
SETTINGS = ("run.questions=4", "run.steps=3", "evaluation.every=0", "evaluation.at_start=false")
SETTINGS += ("evaluation.samples=1", "evaluation.ks=[1]", "name=run")
SEEN = "engine has imported vLLM"  # where the run looks at its engine, twice a second, while that loads the model
MOMENTS = {  # what a line says when something is over
    "command line and recipe": r"Profile cpu",
    "tasks read": r"reading the tasks: ",
    "Ray started": r"starting Ray: ",
    "model checked": r"checking the model: ",
    SEEN: r"engine 0: loading the model",
    "engines serve": r"starting vLLM engines: ",
    "learner ready": r"starting DeepSpeed ranks: ",
    "weights published": r"publishing weights to the engines: ",
    "page and sinks done, parts ended": r"Finished\.",
}
FIRST, LAST, PROMPT = "first step begins", "last row written", "prompt"


def main() -> int:
    options = parser(__doc__, repeats=3)
    options.add_argument("--against", type=Path, metavar="CHECKOUT", help="a folder with other code, to compare with")
    args = options.parse_args()
    record = Record("startup", args)
    checkouts = {"this": ROOT} | ({"other": args.against.resolve()} if args.against else {})
    hertz = os.sysconf("SC_CLK_TCK")
    for checkout in checkouts.values() if not args.small else ():
        _run(checkout, hertz)
    sides = {name: lambda checkout=checkout: _run(checkout, hertz) for name, checkout in checkouts.items()}
    samples = interleave(sides, 1 if args.small else args.repeats)
    rows = []
    for side, found in samples.items():
        known = set.intersection(*map(set, found))
        middle = {name: statistics.median(sample[name] for sample in found) for name in known}
        names = [name for name in known if not name.startswith("core ") and name not in BOUNDS]
        for name in sorted(names, key=middle.__getitem__):
            cores = f"{middle[f'core {name}']:.1f}" if f"core {name}" in middle else ""
            rows.append([f"{name}{'' if side == 'this' else ' (other checkout)'}", f"{middle[name]:.1f}", cores])
    spent = {what: statistics.median(sample[what] for sample in samples["this"]) for what in BOUNDS}
    notes = [
        f"Start-up: {spent['start']:.1f} s (bound {BOUNDS['start']:g}); from the last row to the prompt: "
        f"{spent['end']:.1f} s (bound {BOUNDS['end']:g}).",
        f"Medians of {len(samples['this'])} runs of 3 steps after one that is not counted.",
    ]
    if args.against:
        ratios = {what: median_ratio(samples, "this", "other", what) for what in BOUNDS}
        notes.append(f"÷ the other checkout: start-up {ratios['start']:.2f}, end {ratios['end']:.2f}.")
    record.finish(
        ["moment", "s after the command", "core s until then"],
        rows,
        notes,
        samples=samples,
        bounds_met={what: spent[what] <= bound for what, bound in BOUNDS.items()},
    )
    return 0


def _run(checkout: Path, hertz: int) -> dict[str, float]:
    """Seconds after the command by moment, core seconds as "core <moment>", and the two that count."""
    command = [sys.executable, "-m", "sdpo.cli", "train", "livecodebench", "--profile", "cpu", *SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}
        began, clock, busy = time.monotonic(), time.time(), _busy(hertz)
        found, lines = {}, []
        with subprocess.Popen(
            [*command, f"run.directory={folder}"],
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout:
                lines.append(line)
                for name, pattern in MOMENTS.items():
                    if name not in found and re.search(pattern, line):
                        found[name], found[f"core {name}"] = time.monotonic() - began, _busy(hertz) - busy
        found[PROMPT], found[f"core {PROMPT}"] = time.monotonic() - began, _busy(hertz) - busy
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command[2:])} failed:\n{''.join(lines)[-3000:]}")
        metrics = read_metrics(Path(folder) / "run" / "metrics.jsonl")
    found[FIRST] = _moment(metrics[0]) - metrics[0]["wall_clock_s"] - clock
    found[LAST] = _moment(metrics[-1]) - clock
    return found | {"start": found[FIRST], "end": found[PROMPT] - found[LAST]}


def _moment(row: dict) -> float:
    return datetime.fromisoformat(row["time"]).timestamp()


def _busy(hertz: int) -> float:
    """Seconds that all cores together have been busy since the machine started."""
    spent = jiffies()
    return (sum(spent) - sum(spent[3:5])) / hertz


if __name__ == "__main__":
    sys.exit(main())
