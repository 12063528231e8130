"""Runs as the report sees them: read from their folders alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpo.config.files import validate
from sdpo.config.identity import configuration
from sdpo.errors import UserError
from sdpo.evaluation import EvaluationResult
from sdpo.tracking import metric_names as names
from sdpo.tracking.run_folder import RunFolder
from sdpo.tracking.run_info import FINISHED, RunInfo

_RESULTS = re.compile(r"step-(\d+)-(.+)\.json")


@dataclass(frozen=True)
class Run:
    """A run folder's content.  `label` is what it is compared as: its algorithm, unless the caller says otherwise.

    `recipe` is the resolved one, with options that came later at their defaults; `inputs` are the checksums of model
    and tasks, empty where none were noted.
    """

    path: Path
    info: RunInfo
    recipe: dict[str, Any]
    rows: list[dict[str, Any]]
    label: str
    inputs: dict[str, str] = field(default_factory=dict)

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

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Its options by path, without seed, name and what decides about no number."""
        return configuration(self.recipe)

    @cached_property
    def results(self) -> dict[str, dict[int, EvaluationResult]]:
        """Data set → step → the evaluation's counts per problem."""
        found: dict[str, dict[int, EvaluationResult]] = {}
        for file in sorted((self.path / "evaluations").glob("step-*.json")):
            if match := _RESULTS.fullmatch(file.name):
                found.setdefault(match[2], {})[int(match[1])] = EvaluationResult.load(file)
        return found

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
    recipe = _of_today(folder.recipe, path)
    return Run(Path(path), info, recipe, folder.metrics, label or info.algorithm, _inputs(Path(path) / "inputs.json"))


def _of_today(recipe: dict[str, Any], path: Path) -> dict[str, Any]:
    """Every option that there is now; as it stands where options are gone."""
    try:
        return validate(recipe, str(path), resolved=True).model_dump(mode="json")
    except UserError:
        return recipe


def _inputs(path: Path) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def measured_pass_at_k(runs: Iterable[Run], parts: bool = False) -> list[names.PassAtK]:
    """Every pass@k that any of the runs measured on whole data sets, or on parts of them (by difficulty)."""
    return names.pass_at_k_metrics({key for run in runs for key in run.keys}, parts)
