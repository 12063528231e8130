"""Whole steps: wall clock and pass rate of SDPO and GRPO at `rollout.staleness` 0 (on-policy) and 1 (one batch ahead).

Runs `sdpo train livecodebench --profile cpu` once per algorithm, staleness and seed, one after the other, in folders of
their own, and reads everything back from the run folders.  A step's seconds are the median over its steps of the time
between the rows of metrics.jsonl, without start-up and evaluations; the wall clock is from the end of the first
evaluation to the end of the last step.  Both algorithms get the same number of questions and responses.
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

    def ratio(above: tuple[str, int], below: tuple[str, int], key: str) -> float:
        pairs = zip(runs[_label(*above)], runs[_label(*below)], strict=True)
        return statistics.median(a[key] / b[key] for a, b in pairs)

    ahead = ", ".join(f"{a.upper()} {ratio((a, 1), (a, 0), 'wall_s'):.2f}" for a in ("sdpo", "grpo"))
    slower = [ratio(("sdpo", staleness), ("grpo", staleness), "step_s") for staleness in (0, 1)]
    record.finish(
        ["", "all steps, s", "s per step", "pass@1 at the start", "pass@1 at the end", "pass rate, last 5 steps"],
        rows,
        [
            f"Means of {repeats} seed(s), {steps} steps of 16 questions × 4 responses on the bundled problems.",
            f"Staleness 1 ÷ staleness 0, wall clock of all steps: {ahead}.",
            f"SDPO ÷ GRPO, seconds per step: {slower[0]:.2f} at staleness 0, {slower[1]:.2f} at staleness 1.",
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
        "run.questions=16",
        "rollout.responses=4",
        f"rollout.staleness={staleness}",
        f"seed={seed}",
        f"data.world_seed={seed}",
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
        "wall_s": clock[-1] - ends[0]["wall_clock_s"],
        "step_s": statistics.median(b - a for a, b in zip(clock, clock[1:], strict=False)),
        "pass_at_start": ends[0]["eval/held_out/pass@1"],
        "pass_at_end": ends[-1]["eval/held_out/pass@1"],
        "pass_rate": statistics.mean(row["train/pass_rate"] for row in steps[-5:]),
    }


if __name__ == "__main__":
    sys.exit(main())
