"""A run folder as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo.config.files import load_resolved
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.evaluation.results import EvaluationResult
from sdpo.tracking import RunFolder
from sdpo.tracking.rollouts import rollout_steps, rollouts_path
from sdpo.training.checkpoints import find_policy

if TYPE_CHECKING:
    import pandas as pd


def load_run(path: str | Path) -> Run:
    """The run in a folder (runs/NAME), finished or not.  Raises UserError where there is none."""
    return Run(Path(path))


def inspect(path: str | Path) -> Path:
    """`sdpo inspect`: write the page of a run's rollouts, every token with its credit.  Returns its path."""
    from sdpo.report.inspect_page import inspect_page

    return inspect_page(Path(path))


class Run:
    """Reads a run's folder each time it is asked, so that it follows a run that is still going on."""

    def __init__(self, path: Path) -> None:
        self.path, self._folder = path, RunFolder(path)
        if self._folder.info is None:
            raise UserError(f"There is no run in {path}: it has no run.json. Runs lie in runs/<name>.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    @property
    def status(self) -> str:
        """running, finished, interrupted, failed or died."""
        info = self._folder.info
        assert info is not None
        return info.status

    @property
    def recipe(self) -> Recipe:
        """The settings it was made with, every default written out."""
        return load_resolved(self.path / "recipe.yaml")

    @property
    def policy(self) -> Path:
        """The Hugging Face folder of its best checkpoint, of the last one without an evaluation."""
        return find_policy(str(self.path))

    @property
    def report(self) -> Path:
        """Its page, which is there once it has ended."""
        return self._folder.report

    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl: a row per step and per evaluation; what was not measured is NaN.

        The columns are `step`, `generations`, `wall_clock_s` (seconds) and the metrics by their names.
        """
        import pandas as pd

        return pd.DataFrame(self._folder.metrics)

    def rollouts(self, steps: Iterable[int] | None = None) -> pd.DataFrame:
        """A row per response, with prompt, verdict, feedback and the teacher's prompt (`sdpo.tracking.rollouts`).

        steps: of these alone; a long run drops some tables (`tracking.rollouts_mb`).  Raises UserError for a step
        without a table.
        """
        import pandas as pd

        kept = rollout_steps(self._folder.rollouts)
        wanted = kept if steps is None else list(steps)
        if missing := sorted(set(wanted) - set(kept)):
            raise UserError(f"{self.path} has no rollouts of step {missing[0]}. Steps that it has: {kept or 'none'}.")
        tables = [pd.read_parquet(rollouts_path(self._folder.rollouts, step)) for step in wanted]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def evaluations(self) -> dict[tuple[int, str], EvaluationResult]:
        """(step, set of tasks) → the counts per task and the pass@k that follow from them."""
        from sdpo.report.runs import load_run as read

        results = read(self.path).results
        return {(step, name): result for name, steps in results.items() for step, result in steps.items()}
