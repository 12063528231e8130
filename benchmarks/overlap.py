"""Whole steps: wall clock and pass rate of SDPO and GRPO at `rollout.staleness` 0 (on-policy) and 1 (one batch ahead).

Runs `sdpo train livecodebench --profile cpu` once per algorithm, staleness and seed, one after the other, in folders of
their own, and reads everything back from the run folders.  A step's seconds are the median over its steps of the time
between the rows of metrics.jsonl, without start-up and evaluations.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import ROOT, Record, parser
from sdpo.tracking.metrics_file import read_metrics

SIDES = [(algorithm, staleness) for algorithm in ("sdpo", "grpo") for staleness in (0, 1)]


def main() -> int:
    options = parser(__doc__, repeats=2)
    options.add_argument("--steps", type=int, default=20)
    args = options.parse_args()
    record = Record("overlap", args)
    steps, repeats = (2, 1) if args.small else (args.steps, args.repeats)
    runs: dict[str, list[dict[str, float]]] = {_label(*side): [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(repeats):
            for side in SIDES:
                runs[_label(*side)].append(_run(Path(folder), *side, seed, steps, args.small))
    rows = [
        [label] + [f"{statistics.mean(run[key] for run in found):{form}}" for key, form in _COLUMNS.items()]
        for label, found in runs.items()
    ]
    ratios = {
        staleness: statistics.median(
            a["step_s"] / b["step_s"]
            for a, b in zip(runs[_label("sdpo", staleness)], runs[_label("grpo", staleness)], strict=True)
        )
        for staleness in (0, 1)
    }
    record.finish(
        ["", "wall clock, s", "s per step", "pass@1 at the start", "pass@1 at the end", "pass rate, last 5 steps"],
        rows,
        [
            f"Means of {repeats} seed(s), {steps} steps on the bundled problems, evaluation at start and end.",
            f"SDPO ÷ GRPO, seconds per step: {ratios[0]:.2f} at staleness 0, {ratios[1]:.2f} at staleness 1.",
        ],
        runs=runs,
    )
    return 0


def _label(algorithm: str, staleness: int) -> str:
    return f"{algorithm.upper()}, staleness {staleness}"


_COLUMNS = {"wall_s": ".0f", "step_s": ".2f", "pass_at_start": ".3f", "pass_at_end": ".3f", "pass_rate": ".3f"}


def _run(folder: Path, algorithm: str, staleness: int, seed: int, steps: int, small: bool) -> dict[str, float]:
    name = f"{algorithm}-staleness{staleness}-seed{seed}"
    settings = [
        f"rollout.staleness={staleness}",
        f"seed={seed}",
        f"run.steps={steps}",
        f"run.directory={folder}",
        f"name={name}",
        "evaluation.every=0",
        "evaluation.training_problems=false",
        "tracking.wandb=disabled",
        *(["run.questions=2", "evaluation.samples=1", "evaluation.ks=[1]"] if small else []),
    ]
    command = [sys.executable, "-m", "sdpo.cli", "train", "livecodebench", "--profile", "cpu", *settings]
    command += ["--algorithm", algorithm]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return _read(folder / name)


def _read(run: Path) -> dict[str, float]:
    rows = read_metrics(run / "metrics.jsonl")
    steps = [row for row in rows if "train/pass_rate" in row]
    ends = [row for row in rows if "eval/held_out/pass@1" in row]
    clock = [row["wall_clock_s"] for row in steps]
    return {
        "wall_s": rows[-1]["wall_clock_s"],
        "step_s": statistics.median(b - a for a, b in zip(clock, clock[1:], strict=False)),
        "pass_at_start": ends[0]["eval/held_out/pass@1"],
        "pass_at_end": ends[-1]["eval/held_out/pass@1"],
        "pass_rate": statistics.mean(row["train/pass_rate"] for row in steps[-5:]),
    }


if __name__ == "__main__":
    sys.exit(main())
