"""Runs as the report sees them: read from their folders alone."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo.config.files import recipe_names
from sdpo.errors import UserError
from sdpo.tracking import metric_names as names
from sdpo.tracking.run_folder import RunFolder
from sdpo.tracking.run_info import FINISHED, RunInfo


@dataclass(frozen=True)
class Run:
    """A run folder's content.  `label` is what it is compared as: its algorithm, unless the caller says otherwise."""

    path: Path
    info: RunInfo
    recipe: dict[str, Any]
    rows: list[dict[str, Any]]
    label: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def generations(self) -> int:
        """Responses sampled for training until the last row."""
        return int(max((row.get("generations", 0) for row in self.rows), default=0))

    @property
    def steps(self) -> int:
        return int(max((row.get("step", 0) for row in self.rows), default=0))

    @property
    def wall_clock_s(self) -> float:
        return float(max((row.get("wall_clock_s", 0.0) for row in self.rows), default=0.0))

    @property
    def turns(self) -> int:
        """The most that a rollout may have."""
        return int((self.recipe.get("environment") or {}).get("turns", 1))

    @property
    def thinking(self) -> str:
        """The rule by which its evaluations found programs in responses; runs from before there were two: official."""
        return str((self.recipe.get("evaluation") or {}).get("thinking", "official"))

    @property
    def finished(self) -> bool:
        return self.info.status == FINISHED

    @property
    def keys(self) -> set[str]:
        return {key for row in self.rows for key in row}

    def series(self, key: str, axis: str = "generations") -> list[tuple[float, float]]:
        """(axis, value) of the rows with `key`, in order; of rows of one step, the last.  NaN where it was none."""
        rows = {row["step"]: row for row in self.rows if key in row and axis in row and "step" in row}
        values = [(row[axis], row[key]) for _, row in sorted(rows.items())]
        return [(float(x), math.nan if y is None else float(y)) for x, y in values]


def load_run(path: Path, label: str | None = None) -> Run:
    """Raises `UserError` if `path` is not a run folder."""
    folder = RunFolder(path)
    info = folder.info
    if info is None:
        raise UserError(f"{path} is not a run folder: it has no run.json. Runs lie in runs/<name>/ after `make train`.")
    return Run(Path(path), info, folder.recipe, folder.metrics, label or info.algorithm)


def find_runs(runs_dir: Path, recipe: str) -> list[Path]:
    """The newest run of each algorithm and seed of `recipe`, by algorithm and seed; unfinished ones as well.

    A run that has recorded nothing yet does not hide an older one that has.  Raises `UserError` if there is none.
    """
    newest: dict[tuple[str, int], tuple[bool, str, Path]] = {}
    others = set()
    for file in sorted(Path(runs_dir).glob("*/run.json")):
        info = RunInfo.read(file)
        if info.recipe != recipe:
            others.add(info.recipe)
            continue
        metrics = file.parent / "metrics.jsonl"
        candidate = (metrics.exists() and metrics.stat().st_size > 0, info.created, file.parent)
        key = (info.algorithm, info.seed)
        newest[key] = max(newest.get(key, candidate), candidate)
    found = [path for _, (has_rows, _, path) in sorted(newest.items()) if has_rows]
    if not found:
        known = recipe_names()
        near = difflib.get_close_matches(recipe, sorted({*known, *others}), 1)
        has = f" (it has runs of: {', '.join(sorted(others))})" if others else ""
        remedy = (
            f"Make one with: make train RECIPE={recipe}"
            if recipe in known
            else f"{f'Did you mean {near[0]}? ' if near else ''}Recipes: {', '.join(known)}."
        )
        raise UserError(f"There is no run of the recipe {recipe!r} in {runs_dir}{has}. {remedy}")
    return found


def measured_pass_at_k(runs: Iterable[Run], parts: bool = False) -> list[names.PassAtK]:
    """Every pass@k that any of the runs measured on whole data sets, or on parts of them (by difficulty)."""
    return names.pass_at_k_metrics({key for run in runs for key in run.keys}, parts)
