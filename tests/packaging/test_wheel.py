"""A built wheel: what lies in it, and a run from an empty folder with nothing of the checkout in sight."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("sdpo", "sandbox", "recipes", "policies", "pyproject.toml", "setup.py", "README.md", "LICENSE")
UV = [sys.executable, "-m", "uv"]
RUN = [
    "train", "livecodebench", "--profile", "cpu", "run.questions=4", "run.steps=2", "evaluation.every=0",
    "evaluation.at_start=false", "evaluation.training_problems=false", "evaluation.samples=1", "evaluation.ks=[1]",
    "tracking.wandb=disabled", "name=livecodebench-sdpo-seed0",
]  # fmt: skip


def clean_environment() -> dict[str, str]:
    unwanted = ("PYTHONPATH", "RAY_ADDRESS", "PROFILE", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools leaves a build folder behind, and takes up what lies in an older one."""
    work = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, work / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, work / "source" / name)
    build = [*UV, "build", "--wheel", "--offline", "--no-build-isolation", "--python", sys.executable]
    command = [*build, "--out-dir", str(work / "dist"), str(work / "source")]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    (path,) = (work / "dist").glob("*.whl")
    return path


def test_it_holds_the_two_packages_with_recipes_and_policies_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {PurePosixPath(name).parts[0] for name in names if ".dist-info/" not in name} == {"sdpo", "sandbox"}
    bundled = {str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/**/*.yaml")}
    bundled |= {str(path.relative_to(ROOT)) for path in ROOT.glob("policies/*/*")}
    assert {"minicode", "minitools"} <= {PurePosixPath(name).parts[1] for name in bundled if "policies" in name}
    assert len(bundled) > 10 and {f"sdpo/{name}" for name in bundled} <= names
    here = [path.relative_to(ROOT) for package in ("sdpo", "sandbox") for path in (ROOT / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts]  # fmt: skip
    assert {str(path) for path in here} <= names, "a data file that pyproject.toml does not name"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel in it that sees this one's packages, but neither the checkout nor its metadata."""
    root = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / "bin" / "python"
    subprocess.run([*UV, "pip", "install", "-q", "--offline", "--no-deps", "--python", python, wheel], check=True)
    site = next((root / "lib").glob("python3*/site-packages"))
    packages = tmp_path_factory.mktemp("packages")
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for path in [path for folder in folders for path in Path(folder).iterdir()]:
        if "sdpo" not in path.name:
            (packages / path.name).symlink_to(path)
    (site / "packages.pth").write_text(f"{packages}\n")
    return root


@pytest.fixture
def sdpo(installed, tmp_path):
    """The installed command, called in an empty folder; returns what it printed."""

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [installed / "bin" / "sdpo", *arguments], cwd=tmp_path, env=clean_environment() | {"COLUMNS": "400"},
            capture_output=True, text=True, timeout=550,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_the_doctor_knows_that_it_is_no_checkout(sdpo, installed):
    found = sdpo("doctor")
    assert "as sdpo asks for" in found and "site-packages/sandbox" in found and str(installed) in found


@pytest.mark.slow
def test_a_recipe_of_ones_own_extends_a_bundled_one(sdpo, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: recipes/livecodebench/sdpo.yaml\nrecipe: mine\n")
    assert "mine-sdpo-seed0" in sdpo("train", "mine.yaml", "--profile", "cpu", "--dry-run")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_trains_from_an_empty_folder(sdpo, tmp_path):
    sdpo(*RUN)
    run = tmp_path / "runs" / "livecodebench-sdpo-seed0"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows][-1] == 2 and (run / "report.html").exists()
    assert json.loads((run / "run.json").read_text())["commit"].startswith("version ")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
