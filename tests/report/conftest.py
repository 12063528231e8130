"""Run folders made by the real tracker, with generated numbers."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from sdpo.tracking import Console, RunFolder, RunInfo, Tracker

RunMaker = Callable[..., Path]


def evaluation(dataset: str, k: int, value: float) -> dict[str, float]:
    key = f"eval/{dataset}/pass@{k}"
    return {key: value, f"{key}/low": max(0.0, value - 0.05), f"{key}/high": min(1.0, value + 0.05)}


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make_run(runs_dir: Path) -> RunMaker:
    return run_maker(runs_dir)


@pytest.fixture(scope="module")
def two_algorithms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SDPO and GRPO runs, two seeds each; GRPO learns at a third of the rate and never reaches .8."""
    runs_dir = tmp_path_factory.mktemp("two_algorithms")
    make = run_maker(runs_dir)
    for seed in (0, 1):
        make("sdpo", seed, rate=300, settings={"learner": {"clip": 1.0, "lr": 1e-3}})
        make("grpo", seed, rate=900, settings={"learner": {"clip": 1.0, "lr": 5e-4}})
    return runs_dir


def run_maker(runs_dir: Path) -> RunMaker:
    def make(
        algorithm: str = "sdpo",
        seed: int = 0,
        *,
        rate: float = 600.0,
        steps: int = 20,
        name: str = "",
        created: str = "2026-01-01T00:00:00.000+00:00",
        recipe: str = "livecodebench",
        settings: dict | None = None,
        finish: bool = True,
        hardware: str = "a processor, 2 cores",
        rollouts: list[dict] | None = None,
        brief: bool = False,
    ) -> Path:
        """pass@1 on the training problems is 1 − exp(−generations / rate), evaluated every 2 steps of 64 generations.

        A brief run records the pass rates alone, which makes for fewer figures.
        """
        name = name or f"{recipe}-{algorithm}-seed{seed}"
        info = RunInfo(
            recipe,
            algorithm,
            seed,
            "cpu",
            created,
            "abc123",
            hardware,
            f"sdpo train {recipe} algorithm={algorithm} seed={seed}",
        )
        resolved = {
            "name": name,
            "recipe": recipe,
            "seed": seed,
            "algorithm": {"name": algorithm},
            "learner": {"clip": 1.0},
        }
        with (
            RunFolder(runs_dir / name) as folder,
            Console(name, steps, rich_console=RichConsole(file=io.StringIO())) as console,
        ):
            folder.create(info, {**resolved, **(settings or {})})
            tracker = Tracker(folder, console)
            for step in range(steps + 1):
                generations = 64 * step
                value = 1 - math.exp(-generations / rate)
                if step:
                    accepted = round(64 * value)
                    metrics = {
                        "train/pass_rate": value,
                        "policy/entropy": 1 - value,
                        "response/length_mean": 18.0 + value,
                        "verdict/accepted": accepted,
                        "verdict/wrong_answer": 64 - accepted,
                        "learner/grad_norm": 0.5,
                    }
                    if brief:
                        metrics = {"train/pass_rate": value}
                    elif algorithm == "sdpo":
                        metrics |= {"distillation/loss": 0.1 + 0.01 * step, "distillation/teacher_entropy": 0.5}
                    with tracker.phase("generate"):
                        time.sleep(0.001)  # a time of zero is no time
                    tracker.log(step, generations, metrics)
                if step % 2 == 0:
                    numbers = evaluation("train", 1, value)
                    if not brief:
                        numbers |= evaluation("train", 4, math.sqrt(value)) | evaluation("held_out", 1, value / 2)
                        numbers |= evaluation("held_out", 4, math.sqrt(value / 2))
                        numbers |= evaluation("held_out/easy", 1, value / 2)
                    tracker.log(step, generations, numbers)
            if rollouts:
                tracker.rollouts(steps, rollouts)
            if finish:
                tracker.finish()
        return runs_dir / name

    return make
