"""Stands in for `sdpo train`: the same arguments and run folder, resumed and stopped alike, with generated numbers.

A real run takes a minute to start.  Options that only this one has: the environment's TINY_PAUSE_S per step, and
TINY_FAIL, the name of a run that ends with an error after its first step.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console as RichConsole

from sdpo.config.files import find_recipe, load_recipe
from sdpo.evaluation import EvaluationResult
from sdpo.evaluation.results import ProblemResult
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker

_, train, recipe_name, _, algorithm, _, profile, *rest = sys.argv
assert train == "train"
recipe = load_recipe(find_recipe(recipe_name, algorithm), profile, [word for word in rest if "=" in word])
path = Path(recipe.run.directory) / recipe.name
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(True))


def measured(step: int, seed: int) -> dict[str, float]:
    metrics = {}
    for dataset in ("train", "held_out"):
        rate = (1 - math.exp(-step / 4)) / (1 if dataset == "train" else 2)
        rows = tuple(ProblemResult(f"{dataset}-{i}", 4, round(4 * rate), "easy") for i in range(4))
        result = EvaluationResult(rows, (1, 4), seed=seed)
        result.save(path / "evaluations" / f"step-{step:06d}-{dataset}.json")
        metrics |= {f"eval/{dataset}/{key}": value for key, value in result.metrics().items()}
    return metrics


with RunFolder(path) as folder, Console(recipe.name, 1, rich_console=RichConsole(file=io.StringIO())) as console:
    start = 0
    if folder.info is None:
        info = RunInfo.collect(recipe=recipe.recipe, algorithm=algorithm, seed=recipe.seed, profile=profile)
        folder.create(info, recipe.model_dump(mode="json"))
    else:
        start = max((row["step"] for row in folder.metrics), default=0)
        folder.resume(start)
        print(f"Resuming after step {start}", flush=True)
    tracker = Tracker(folder, console)
    for step in range(start, recipe.run.steps + 1):
        generations = step * recipe.samples_per_step
        if step > start:
            time.sleep(float(os.environ.get("TINY_PAUSE_S", 0)))
            tracker.log(step, generations, {"train/pass_rate": step / 100, "policy/entropy": 1 / step})
        if step % recipe.evaluation.every == 0:
            tracker.log(step, generations, measured(step, recipe.seed))
        print(f"step {step}", flush=True)
        if stop:
            tracker.finish("interrupted", "stopped by the user")
            sys.exit(130)
        if step == 1 and os.environ.get("TINY_FAIL") == recipe.name:
            print("error: the disk is full (for this test).", file=sys.stderr)
            sys.exit(2)
    tracker.finish()
