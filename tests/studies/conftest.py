"""Small studies, and a runner that makes them with `tiny_run.py`."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from studies.evidence.layout import Layout
from studies.evidence.progress import Progress
from studies.evidence.runner import Runner
from studies.evidence.studies import Studies, load_studies, specs
from tests.helpers.small_studies import STUDIES, TINY


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return declare(tmp_path)


def declare(folder: Path) -> Studies:
    path = folder / "studies.yaml"
    path.write_text(yaml.safe_dump(STUDIES, sort_keys=False))
    return load_studies(path)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "runs")


@pytest.fixture
def make_runner(layout: Layout) -> Callable[..., Runner]:
    return runner_for(layout)


def runner_for(layout: Layout) -> Callable[..., Runner]:
    def make(retry: bool = False) -> Runner:
        return Runner(layout, Progress(Console(file=io.StringIO(), width=200)), retry, TINY)

    return make


@pytest.fixture(scope="session")
def tuning_made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The tuning of the small studies, made once; to be read only."""
    folder = tmp_path_factory.mktemp("tuning")
    layout = Layout(folder / "data", folder / "runs")
    runner_for(layout)().run(specs(declare(folder), "tuning", None))
    return layout


@pytest.fixture
def tuned(tuning_made: Layout, layout: Layout) -> Layout:
    """The records of the tuning in a folder of this test."""
    shutil.copytree(tuning_made.data, layout.data)
    return layout
