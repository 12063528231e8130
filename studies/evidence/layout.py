"""Where the evidence lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studies.evidence.studies import TUNING

DATA = Path("docs/results/evidence")  # in the project: committed
RUNS = Path("runs/evidence")  # run folders: logs, checkpoints, rollouts; not committed


def settings_file(tuning: str) -> str:
    """settings.yaml for `tuning`, tools-settings.yaml for `tools-tuning`."""
    return f"{tuning.replace(TUNING, 'settings')}.yaml"


@dataclass(frozen=True)
class Layout:
    """`data` holds records, settings, figures and the page; `runs` the folders of the runs."""

    data: Path
    runs: Path

    @property
    def records(self) -> Path:
        return self.data / "runs"

    @property
    def skills(self) -> Path:
        return self.data / "skills"

    @property
    def teacher(self) -> Path:
        return self.data / "teacher"

    @property
    def settings(self) -> Path:
        return self.settings_of(TUNING)

    def settings_of(self, tuning: str) -> Path:
        """The settings chosen by a part."""
        return self.data / settings_file(tuning)

    @property
    def page(self) -> Path:
        return self.data / "README.md"

    def record(self, run: str) -> Path:
        """The record of a run `<part>/<name>`."""
        return self.records / f"{run}.json"

    def folder(self, run: str) -> Path:
        """The run folder of a run `<part>/<name>`."""
        return self.runs / run.replace("/", "-")
