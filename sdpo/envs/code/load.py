"""From a recipe to its dataset, whatever the source."""

from __future__ import annotations

from sandbox import Limits
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.envs.code.livecodebench import Progress, load_livecodebench
from sdpo.envs.code.splits import Dataset, in_sequence
from sdpo.envs.minicode import FAMILIES, load_minicode

TASKS = {"minicode": "lists", "minicode-texts": "texts"}  # what a family's metrics are called where there are several


def load_dataset(recipe: Recipe, progress: Progress | None = None) -> Dataset:
    """The problems of a recipe.  minicode's are generated as LiveCodeBench rows and read back by the same loader."""
    data = recipe.data
    limits = Limits(cpu_time_s=recipe.sandbox.cpu_time_s, memory_mb=recipe.sandbox.memory_mb)
    if data.source == "minicode":
        world = recipe.seed if data.world_seed is None else data.world_seed
        made = {
            TASKS[name]: load_minicode(world, family=FAMILIES[name], test_split=data.test_split, limits=limits)
            for name in data.families
        }
        return in_sequence(made) if len(made) > 1 else next(iter(made.values()))
    return load_livecodebench(
        None if data.path is None else locate(data.path),
        release=data.release,
        window=data.window,
        test_split=data.test_split,
        problem_split=data.problem_split,
        held_out_fraction=data.held_out_fraction if data.problem_split == "hash" else None,
        seed=recipe.seed,
        max_bad_rows=data.max_bad_rows,
        exclude_ungradable=data.exclude_ungradable,
        limits=limits,
        progress=progress,
    )
