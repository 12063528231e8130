"""How the cost of a learner step grows with response length, group size, vocabulary and ranks, for SDPO and GRPO.

Random Qwen3-shaped weights of the bundled policy's size, random responses; the teacher's prompt is four times as long
as the student's.  One quantity varies at a time.  Every point is a fresh process per rank, with the project's learner
in it; memory is the peak of rank 0's resident set during a step, beyond what was resident before the first one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Record, in_fresh_process, parser, progress, timed
from benchmarks.learner import dealt, free_address, start_worker, step
from benchmarks.memory import MIB, reset_peak, resident

BASE = {"response": 128, "group": 8, "vocabulary": 8192, "ranks": 1}
GRID = {"response": (64, 128, 256, 512), "group": (4, 8, 16), "vocabulary": (1024, 8192, 65_536), "ranks": (1, 2)}
SMALL_BASE = {"response": 8, "group": 2, "vocabulary": 512, "ranks": 1}
SMALL_GRID = {"response": (8, 16), "ranks": (1, 2)}
QUESTIONS, PROMPT, TEACHER_PROMPT = 4, 64, 256
ALGORITHMS = ("grpo", "sdpo")


def main() -> int:
    options = parser(__doc__, repeats=3)
    for hidden in ("--point", "--model", "--address"):
        options.add_argument(hidden, help=argparse.SUPPRESS)
    options.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.point:
        host, port = args.address.split(":")
        print(json.dumps(_measure(json.loads(args.point), args.model, args.rank, (host, int(port)), args.repeats)))
        return 0
    record = Record("scaling", args)
    base, grid = (SMALL_BASE, SMALL_GRID) if args.small else (BASE, GRID)
    points = {name: [base | {name: value} for value in values] for name, values in grid.items()}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = {
            v: _model(Path(folder) / str(v), v) for v in {p["vocabulary"] for row in points.values() for p in row}
        }
        for point in (p for row in points.values() for p in row):
            for algorithm in ALGORITHMS:
                key = json.dumps(point | {"algorithm": algorithm})
                progress(key)
                if key not in found:
                    found[key] = _run(json.loads(key), models[point["vocabulary"]], args.repeats)
    rows = []
    for name, row in points.items():
        for point in row:
            grpo, sdpo = (found[json.dumps(point | {"algorithm": a})] for a in ALGORITHMS)
            rows.append(
                [
                    f"{name} {point[name]:,}",
                    f"{grpo['seconds']:.2f}",
                    f"{sdpo['seconds']:.2f}",
                    f"{grpo['peak_bytes'] / MIB:,.0f}",
                    f"{sdpo['peak_bytes'] / MIB:,.0f}",
                ]
            )
    record.finish(
        ["varied", "GRPO, seconds", "SDPO, seconds", "GRPO, peak MiB", "SDPO, peak MiB"],
        rows,
        [
            f"Otherwise {QUESTIONS} questions, groups of {base['group']}, responses of {base['response']} tokens, "
            f"vocabulary {base['vocabulary']:,}, {base['ranks']} rank of one thread; prompts of {PROMPT} tokens, the "
            f"teacher's of {TEACHER_PROMPT}. Median of {args.repeats} steps.",
            "The grid varies one quantity at a time; 2 ranks share the same batch, each with a core of its own.",
        ],
        points=[json.loads(key) | values for key, values in found.items()],
    )
    return 0


def _model(folder: Path, vocabulary: int) -> str:
    import torch
    from transformers import AutoConfig, Qwen3ForCausalLM

    from sdpo.config.paths import locate

    config = AutoConfig.from_pretrained(locate("policies/minicode"), vocab_size=vocabulary)
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def _run(point: dict[str, Any], model: str, repeats: int) -> dict[str, float]:
    """Rank 0's measurements; further ranks run beside it."""
    host, port = free_address()
    command = ["--point", json.dumps(point), "--model", model, "--address", f"{host}:{port}", "--repeats", str(repeats)]
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling", *command, "--rank", str(rank)], stdout=subprocess.DEVNULL
        )
        for rank in range(1, point["ranks"])
    ]
    try:
        return in_fresh_process("scaling", *command, "--rank", "0")
    finally:
        for other in others:
            other.kill()
            other.wait()


def _measure(
    point: dict[str, Any], model: str, rank: int, address: tuple[str, int], repeats: int
) -> dict[str, float | int]:
    from sdpo.config.files import find_recipe, load_recipe

    overrides = (
        f"model.path={model}",
        "learner.cpu_threads=1",
        f"learner.ranks={point['ranks']}",
        f"rollout.max_response_tokens={point['response']}",
    )
    recipe = load_recipe(find_recipe("livecodebench", point["algorithm"]), "cpu", overrides)
    micro_batches = dealt(recipe, _samples(point))[rank]
    worker = start_worker(recipe, rank, address)
    before = reset_peak()
    step(worker, micro_batches)  # the first one builds the optimiser's state
    spent = [timed(lambda: step(worker, micro_batches))["seconds"] for _ in range(repeats)]
    return {"seconds": statistics.median(spent), "peak_bytes": resident("VmHWM") - before}


def _samples(point: dict[str, Any]) -> list:
    """Equal on every rank: random tokens, all responses of full length."""
    import numpy as np

    from sdpo.types import Sample, TeacherContext

    rng = np.random.default_rng(0)
    length = point["response"]

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, point["vocabulary"], count).tolist())

    made = []
    for _ in range(QUESTIONS):
        prompt = tokens(PROMPT)
        for i in range(point["group"]):
            made.append(
                Sample(
                    prompt_ids=prompt,
                    response_ids=tokens(length),
                    sampler_log_probs=np.full(length, -np.log(point["vocabulary"]), np.float32),
                    advantages=np.full(length, 1.0 if i % 2 else -1.0, np.float32),
                    teacher=TeacherContext((*prompt, *tokens(TEACHER_PROMPT - PROMPT)), np.ones(length, np.float32))
                    if point["algorithm"] == "sdpo"
                    else None,
                )
            )
    return made


if __name__ == "__main__":
    sys.exit(main())
