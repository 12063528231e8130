"""Against the real W&B package, offline; what it wrote is read back from its own file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import wandb

from sdpo.errors import UserError
from sdpo.tracking import WandbLogger
from sdpo.tracking.wandb_logger import choose_mode, has_account
from tests.helpers.wandb_file import read_offline


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _logger(folder: Path, **arguments) -> WandbLogger:
    return WandbLogger(
        folder,
        project="sdpo",
        group="livecodebench",
        name="livecodebench-sdpo-seed0",
        tags=["sdpo", "cpu"],
        config={"learner": {"lr": 0.001}},
        **arguments,
    )


def _row(step: int) -> dict:
    return {"step": step, "generations": 64 * step, "wall_clock_s": 1.5 * step, "train/pass_rate": 0.1, "a": None}


def test_an_offline_run_holds_group_tags_axes_and_rows_and_is_resumed_under_its_id(tmp_path: Path):
    logger = _logger(tmp_path)
    run_id = logger.run_id
    assert logger.mode == "offline" and f"wandb sync {tmp_path}/wandb/offline-run-*-{run_id}" in logger.description
    for step in (1, 2):
        logger.log(_row(step))
    logger.log({**_row(2), "eval/train/pass@1": 0.5})
    logger.finish()
    logger.finish()
    written = read_offline(tmp_path)
    (run,) = written.run
    assert (run.project, run.run_group, run.display_name) == ("sdpo", "livecodebench", "livecodebench-sdpo-seed0")
    assert (run.run_id, list(run.tags), run.job_type) == (run_id, ["sdpo", "cpu"], "train")
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in written.history
    ]
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert (rows[1]["generations"], rows[1]["wall_clock_s"], rows[2]["eval/train/pass@1"]) == (128, 3.0, 0.5)
    assert "a" not in rows[0]
    metrics = {metric.name or metric.glob_name: metric for metric in written.metric}
    assert metrics["*"].step_metric == "step" and metrics["eval/*"].step_metric == "generations"
    assert {"step", "generations", "wall_clock_s"} <= metrics.keys()

    again = _logger(tmp_path, run_id=run_id)
    assert again.run_id == run_id
    again.log(_row(3))
    again.finish()
    assert [
        item.value_json for item in read_offline(tmp_path, runs=2).history[-1].item if "step" in item.nested_key
    ] == ["3"]


def test_a_run_that_is_open_in_the_same_process_is_left_alone(tmp_path: Path):
    with wandb.init(mode="offline", dir=tmp_path, project="notebook", settings=wandb.Settings(silent=True)) as other:
        logger = _logger(tmp_path / "run")
        assert logger.run_id != other.id
        logger.log(_row(1))
        logger.finish()
        other.log({"still": "open"})
    assert [run.project for run in read_offline(tmp_path / "run").run] == ["sdpo"]


def test_a_failure_is_said_once_and_stops_nothing(tmp_path: Path):
    warnings: list[str] = []
    logger = _logger(tmp_path, warn=warnings.append)
    logger._run.finish()  # from here on W&B refuses every row
    logger.log(_row(1))
    logger.log(_row(2))
    logger.finish()
    assert len(warnings) == 1 and "W&B failed" in warnings[0] and "metrics.jsonl" in warnings[0]


def test_off_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = _logger(tmp_path)
    logger.log(_row(1))
    logger.finish()
    assert logger.description == "W&B is off" and list(tmp_path.iterdir()) == []


def test_the_mode_follows_the_recipe_then_the_environment_then_the_account(monkeypatch, tmp_path: Path):
    assert choose_mode() == "offline" and not has_account()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password not-a-key\n")
    assert choose_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert choose_mode() == "offline"  # the account is on another server
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode() == "offline" and choose_mode("disabled") == "disabled"


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python notes a module that it must not import


@pytest.mark.parametrize("environment", ["", "online"])
def test_without_the_package_auto_says_so_in_one_line_and_goes_on(
    not_installed, environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_MODE", environment)
    warnings: list[str] = []
    logger = _logger(tmp_path, warn=warnings.append)
    assert "wandb is not installed (pip install wandb)" in logger.description and "\n" not in logger.description
    logger.log(_row(1))
    logger.finish()
    assert not warnings and not logger.run_id and not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_without_the_package_a_mode_asked_for_by_name_is_refused_with_its_remedy(not_installed, mode, tmp_path: Path):
    with pytest.raises(UserError, match=f"tracking.wandb={mode} needs the package wandb.*pip install wandb"):
        _logger(tmp_path, mode=mode)


def test_without_the_package_disabled_is_no_mistake(not_installed, tmp_path: Path):
    assert _logger(tmp_path, mode="disabled").mode == "disabled"
