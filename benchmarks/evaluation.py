"""Evaluations beside the generation of the next batch, and before it: the same run both ways, on the same parts.

A run of the cpu profile that evaluates before every step; its learning rate is next to nothing, so that both ways
always sample the same.  Its time is that of its last row: evaluations and steps, without start-up.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Record, median_ratio, medians, parser
from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker
from sdpo.training.interrupt import Interrupt
from sdpo.training.launch import cluster
from sdpo.training.parts import prepared
from sdpo.training.private_folder import private_folder
from sdpo.training.trainer import Trainer
from sdpo.training.workers import workers


class OneAfterTheOther(Trainer):
    """Begins no batch before the evaluation is over."""

    def _begin_at(self, checkpoint: Path | None) -> None:
        super()._begin_at(checkpoint)
        self.batches.begin = lambda step: None  # type: ignore[method-assign]


SIDES = {"before the next batch": OneAfterTheOther, "beside it": Trainer}


def main() -> int:
    options = parser(__doc__, repeats=5)
    options.add_argument("--steps", type=int, default=8)
    args = options.parse_args()
    record = Record("evaluation", args)
    steps, repeats = (2, 1) if args.small else (args.steps, args.repeats)
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        samples = asyncio.run(_measured(steps, repeats, Path(folder), args.small))
    before, beside = SIDES
    ratio = median_ratio(samples, before, beside)
    rows = [[f"evaluations {side}", f"{typical['seconds'] / steps:.2f}"] for side, typical in medians(samples).items()]
    rows[0].append("1.00")
    rows[1].append(f"{1 / ratio:.2f}")
    notes = [
        f"{steps} steps with {steps + 1} evaluations, cpu profile; medians of {repeats} runs of each, in turn. Engine "
        "and learner share the cores, so what is gained is the time in which neither evaluation nor generation fills "
        "the engine."
    ]
    record.finish(["", "s per step and evaluation", "÷ before"], rows, notes, samples=samples, ratio=ratio)
    return 0


async def _measured(steps: int, repeats: int, folder: Path, small: bool) -> dict[str, list[dict[str, float]]]:
    settings = (
        f"run.steps={steps}",
        f"run.checkpoint_every={steps}",
        "evaluation.every=1",
        "evaluation.at_start=true",
        "learner.lr=1e-12",
        "probe.every=0",
        "tracking.wandb=disabled",
        *(("run.questions=2", "evaluation.samples=1", "evaluation.ks=[1]") if small else ()),
    )
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", settings)
    algorithm = build_algorithm(recipe)
    with (
        Console("evaluation", steps, plain=True) as console,
        private_folder(None, console.message),
        prepared(recipe, console) as parts,
    ):
        async with cluster(console) as resources, workers(recipe, algorithm.plan, resources, console) as works:

            async def one(name: str, kind: type[Trainer]) -> dict[str, float]:
                with RunFolder(folder / name) as run:
                    run.create(RunInfo.collect(recipe="", algorithm="sdpo", seed=0, profile="cpu"), {})
                    given = parts.environment, build_algorithm(recipe), parts.dataset, parts.tokenizer
                    with Interrupt(console.message) as interrupt:
                        await kind(recipe, *given, *works, run, Tracker(run, console), interrupt).run()
                    return {"seconds": run.metrics[-1]["wall_clock_s"]}

            samples: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for number in range(repeats):
                for side, kind in SIDES.items():
                    samples[side].append(await one(f"{kind.__name__}-{number}", kind))
    return samples


if __name__ == "__main__":
    sys.exit(main())
