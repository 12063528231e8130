"""Run folders with real recipes and made-up numbers, written by the classes that write real ones."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

from rich.console import Console as RichConsole

from sdpo.config.files import find_recipe, load_recipe
from sdpo.evaluation import EvaluationResult, ProblemResult
from sdpo.tracking import Console, RunFolder, RunInfo, Tracker

INPUTS = {
    "model/model.safetensors": "aa",
    "tasks/training": "8 tasks, bb",
    "tasks/evaluation": "8 tasks, cc",
}
SAMPLES = 4


def write_run(
    runs_dir: Path,
    name: str,
    *overrides: str,
    algorithm: str = "sdpo",
    rate: float = 600.0,
    until: int | None = None,
    created: int = 1,
    inputs: dict[str, str] | None = None,
    problems: int = 8,
) -> Path:
    """A finished run of recipe livecodebench, evaluated five times; pass@1 is about 1 − exp(−generations / rate).

    until: the step at which it was interrupted.  created: the day.  Every problem is a little easier than the last.
    """
    recipe = load_recipe(find_recipe("livecodebench", algorithm), "cpu", [f"name={name}", *overrides])
    info = RunInfo("livecodebench", recipe.algorithm.label, recipe.seed, "cpu", f"2026-01-{created:02d}T00:00:00.000")
    info.commit, info.hardware, info.command = "abc123", "a processor, 2 cores", f"sdpo train livecodebench name={name}"
    with (
        RunFolder(runs_dir / name) as folder,
        Console(name, recipe.run.steps, rich_console=RichConsole(file=io.StringIO())) as console,
    ):
        folder.create(info, recipe.model_dump(mode="json"))
        (folder.path / "inputs.json").write_text(json.dumps({**INPUTS, **(inputs or {})}))
        tracker = Tracker(folder, console)
        steps = recipe.run.steps
        for step in sorted({round(steps * part / 4) for part in range(5)}):
            if until is not None and step > until:
                break
            generations = step * recipe.samples_per_step
            result = _result(1 - math.exp(-generations / rate), problems)
            result.save(folder.evaluations / f"step-{step:06d}-train.json")
            tracker.log(step, generations, {f"eval/train/{key}": value for key, value in result.metrics().items()})
        if until is None:
            tracker.finish()
    return runs_dir / name


def _result(share: float, problems: int) -> EvaluationResult:
    passed = [min(SAMPLES, round(SAMPLES * share * (0.6 + 0.8 * p / max(1, problems - 1)))) for p in range(problems)]
    return EvaluationResult(tuple(ProblemResult(f"task-{p}", SAMPLES, c) for p, c in enumerate(passed)), (1,))


def ten_unlike_runs(runs_dir: Path) -> None:
    """What lies in a folder after some weeks of work with one recipe."""
    teacher = ("teacher.kind=trust_region", "teacher.rate=0.05", "teacher.clock=null")
    for seed in (0, 1, 2):
        write_run(runs_dir, f"sdpo-seed{seed}", f"seed={seed}", rate=600 + 40 * seed, created=1 + seed)
    for seed in (0, 1):
        write_run(runs_dir, f"grpo-seed{seed}", f"seed={seed}", algorithm="grpo", rate=2400 + 100 * seed, created=2)
    write_run(runs_dir, "trust", "seed=1", *teacher, created=5)
    write_run(runs_dir, "smoke", "run.steps=4", created=9)
    write_run(runs_dir, "broken-off", until=40, created=9)
    tools = {"model/model.safetensors": "dd"}
    write_run(runs_dir, "other-model", "model.path=policies/minitools", inputs=tools, created=9)
    world = {"tasks/training": "8 tasks, ee", "tasks/evaluation": "8 tasks, ff"}
    write_run(runs_dir, "other-data", "data.world_seed=5", inputs=world, created=9)
