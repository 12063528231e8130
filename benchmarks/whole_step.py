"""Whole steps of SDPO beside GRPO: generation, judging, update, publication.

* On this machine, cpu profile: two runs, each with an engine and a learner of its own, make steps in turn, GRPO and
  then SDPO, while the other one's parts wait.  The learning rate is next to nothing, so that both always sample with
  the initial policy: with the same seeds, every step's responses are the same on both sides, which is checked.  Beside
  the ratio stands its bound: what GRPO's steps would take if their updates took longer by the ratio of the counted
  arithmetic, and nothing else changed.
* In simulated time, for a GPU: a batch whose response lengths have a long tail, and phase times that were measured on
  a GPU (docs/results/gpu: sized-sdpo, learner_step_0.6B).  A teacher on GPUs of its own, one for each of the learner's,
  scores a group when its last response has ended; the learner's update then has the projection of the teacher's states
  left.

    python -m benchmarks.whole_step [--only simulation|cpu]
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, Record, parser
from benchmarks.continuous import AT_ONCE, RESPONSES, Phases
from benchmarks.learner import dealt
from benchmarks.learner_step import arithmetic
from benchmarks.responses import LONGEST, lengths
from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.schema import Recipe
from sdpo.learner.arithmetic import Forward, projection_flops
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.training.interrupt import Interrupt
from sdpo.training.launch import cluster
from sdpo.training.parts import prepared
from sdpo.training.private_folder import private_folder
from sdpo.training.trainer import Trainer
from sdpo.training.workers import workers

SIDES = ("grpo", "sdpo")
WARM_UP = 2  # steps of each side that are not counted
ENOUGH = 1.05  # measured ÷ bound, here
OWN_GPU = 1.10  # ratio to GRPO in the simulation, of a teacher with a GPU of its own
BATCHES = 200  # simulated


def main() -> int:
    options = parser(__doc__, repeats=30)
    options.add_argument("--only", choices=("simulation", "cpu"), help="one of the two parts")
    args = options.parse_args()
    record = Record("whole_step", args)
    rows, notes, values = [], [], {}
    if args.only != "simulation":
        rows, notes, values = on_this_machine(2 if args.small else args.repeats, args.small)
    if args.only != "cpu":
        found, said, times = simulation()
        rows, notes, values = [*rows, *found], [*notes, *said], values | {"simulated": times}
    record.finish(["steps", "s per step", "÷ GRPO", "bound", "÷ bound"], rows, notes, **values)
    return 0


# ---- on this machine ----


class Recorded(Trainer):
    """Keeps the samples of its last step."""

    def _record(self, groups, samples, learned, credit) -> None:
        self.samples = [sample for group in samples for sample in group]
        super()._record(groups, samples, learned, credit)


def on_this_machine(repeats: int, small: bool) -> tuple[list[list[str]], list[str], dict[str, Any]]:
    questions, responses = (2, 2) if small else (16, 4)
    common = (
        f"run.questions={questions}",
        f"rollout.responses={responses}",
        f"run.steps={repeats + WARM_UP}",
        "learner.lr=1e-12",
        "evaluation.samples=1",
        "evaluation.ks=[1]",
        "probe.every=0",
        "tracking.wandb=disabled",
    )
    recipes = {name: load_recipe(find_recipe("livecodebench", name), "cpu", common) for name in SIDES}
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": 8})  # both sides are there; only one of them works
    with tempfile.TemporaryDirectory(prefix="whole-step-") as folder:
        steps = asyncio.run(_measured(recipes, Path(folder), repeats))
    ratio, bound = (statistics.median(pair[key] for pair in steps) for key in ("ratio", "bound"))
    seconds = {name: statistics.median(pair[name]["seconds"] for pair in steps) for name in SIDES}
    halves = [statistics.median(pair["ratio"] for pair in part) for part in (steps[::2], steps[1::2])]
    rows = [
        ["GRPO, cpu profile", f"{seconds['grpo']:.3f}", "1.00", "", ""],
        ["SDPO, cpu profile", f"{seconds['sdpo']:.3f}", f"{ratio:.3f}", f"{bound:.3f}", f"{ratio / bound:.3f}"],
    ]
    counted = statistics.median(pair["counted"] for pair in steps)
    update, idle = (statistics.median(pair["grpo"][key] for pair in steps) for key in ("update", "idle"))
    notes = [
        f"On this machine: {repeats} steps of {questions} questions × {responses} responses on each side, in turn; "
        f"medians. Counted arithmetic of an update, SDPO ÷ GRPO: {counted:.2f}; of a GRPO step {update:.3f} s are its "
        f"update, and for {idle:.3f} s its learner waits. Bound: (waiting + {counted:.2f} × update) ÷ a GRPO step. "
        f"Measured ÷ bound: {ratio / bound:.3f} (wanted: at most {ENOUGH:g}). The ratio of the even steps alone is "
        f"{halves[0]:.3f}, of the odd ones {halves[1]:.3f}."
    ]
    return rows, notes, {"steps": steps, "ratio": ratio, "bound": bound, "bound_met": ratio <= ENOUGH * bound}


async def _measured(recipes: dict[str, Recipe], folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Pairs of steps."""
    first = next(iter(recipes.values()))
    with (
        Console("whole steps", repeats + WARM_UP, plain=True) as console,
        private_folder(None, console.message),
        prepared(first, console) as parts,
    ):
        async with AsyncExitStack() as stack:
            resources = await stack.enter_async_context(cluster(console))
            trainers = {}
            for name, recipe in recipes.items():
                algorithm = build_algorithm(recipe)
                made = await stack.enter_async_context(workers(recipe, algorithm.plan, resources, console))
                run = stack.enter_context(RunFolder(folder / name))
                run.create(RunInfo.collect(recipe="", algorithm=name, seed=0, profile="cpu"), {})
                given = parts.environment, algorithm, parts.dataset, parts.tokenizer
                around = run, Tracker(run, console), Interrupt(console.message)
                trainers[name] = Recorded(recipe, *given, *made, *around)
                await trainers[name].start()
            try:
                pairs = [{name: await _step(trainers[name]) for name in SIDES} for _ in range(WARM_UP + repeats)]
            finally:
                for trainer in trainers.values():
                    await trainer.batches.close()
    return [_judged(pair) for pair in pairs[WARM_UP:]]


async def _step(trainer: Recorded) -> dict[str, Any]:
    began = time.perf_counter()
    await trainer.step()
    seconds = time.perf_counter() - began
    row = trainer.folder.metrics[-1]
    micro_batches = dealt(trainer.recipe, trainer.samples)[0]
    return {
        "seconds": seconds,
        "update": row["time/update"],
        "idle": seconds - row["time/update"],
        "counted": arithmetic(trainer.recipe, micro_batches)["total"],
        "responses": [list(sample.response_ids) for sample in trainer.samples],
    }


def _judged(pair: dict[str, Any]) -> dict[str, Any]:
    """The two steps of a pair beside each other.  Raises RuntimeError if their responses are not the same."""
    grpo, sdpo = (pair[name] for name in SIDES)
    if sorted(grpo.pop("responses")) != sorted(sdpo.pop("responses")):
        raise RuntimeError("The two sides have sampled different responses, so their steps cannot be compared.")
    counted = sdpo["counted"] / grpo["counted"]
    bound = (grpo["idle"] + counted * grpo["update"]) / grpo["seconds"]
    return {**pair, "ratio": sdpo["seconds"] / grpo["seconds"], "counted": counted, "bound": bound}


# ---- in simulated time ----


def simulation() -> tuple[list[list[str]], list[str], dict[str, Any]]:
    """Medians over batches of one engine and one GPU of the learner; more of both change nothing."""
    phases = Phases.measured()
    update = _updates(phases)
    rng = np.random.default_rng(0)
    batches = [lengths(rng, (AT_ONCE // RESPONSES, RESPONSES), phases.longest) for _ in range(BATCHES)]
    sides = {
        "GRPO": [_inside(batch, phases, update["grpo"]) for batch in batches],
        "SDPO, the learner's teacher": [_inside(batch, phases, update["sdpo"]) for batch in batches],
        "SDPO, a GPU of the teacher's own": [_beside(batch, phases, update) for batch in batches],
    }
    base = statistics.mean(sides["GRPO"])
    ratios = {name: statistics.mean(times) / base for name, times in sides.items()}
    rows = [
        [f"simulated GPU, {name}", f"{statistics.mean(times):.2f}", f"{ratios[name]:.3f}", "", ""]
        for name, times in sides.items()
    ]
    own = ratios["SDPO, a GPU of the teacher's own"]
    rows[-1][3:] = [f"{OWN_GPU:.2f}", f"{own / OWN_GPU:.3f}"]
    notes = [
        f"In simulated time: {BATCHES} batches of {AT_ONCE // RESPONSES} groups of {RESPONSES} responses, log-normal, "
        f"of {phases.longest // LONGEST} tokens at the median and {phases.longest:,} at most, Qwen3-0.6B's phases: a "
        f"decoding pass {phases.decode * 1e3:.2f} ms; per response token an update of "
        f"{', '.join(f'{name} {value * 1e6:.1f} µs' for name, value in update.items())}; a publication "
        f"{phases.publish:.2f} s. {SCORING}"
    ]
    return rows, notes, {"ratios": ratios, "update": update, "bound_met": own <= OWN_GPU}


SCORING = (
    "`teacher` is what its own GPU computes; `own` is the learner's update that is left: GRPO's and the projection of "
    "the teacher's states, by the counted arithmetic."
)


def _updates(phases: Phases) -> dict[str, float]:
    """Seconds per response token."""
    measured = json.loads((RESULTS / "gpu" / "learner_step_0.6B.json").read_text())
    student = measured["counted"]["GRPO"]["total"]
    responses = 2 * 4000  # of that record
    shape = SimpleNamespace(hidden_size=1024, vocab_size=151_936)
    projection = projection_flops(shape, Forward((), responses)) / student
    grpo = phases.update / measured["measured_ratio"]
    return {
        "sdpo": phases.update,
        "grpo": grpo,
        "own": grpo * (1 + projection),
        "teacher": phases.update - grpo * (1 + projection),
    }


def _inside(batch: np.ndarray, phases: Phases, update: float) -> float:
    return float(batch.max()) * phases.decode + float(batch.sum()) * update + phases.publish


def _beside(batch: np.ndarray, phases: Phases, update: dict[str, float]) -> float:
    """The teacher scores groups one after the other, each from the end of its last response."""
    done = 0.0
    for group in sorted(batch, key=max):
        done = max(done, float(group.max()) * phases.decode) + float(group.sum()) * update["teacher"]
    return done + float(batch.sum()) * update["own"] + phases.publish


if __name__ == "__main__":
    sys.exit(main())
