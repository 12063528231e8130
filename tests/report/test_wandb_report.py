"""`sdpo compare --wandb-report`: what the report says, as W&B's own package would send it; no server is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.report import choose, compare
from sdpo.report.wandb_report import compose
from sdpo.tracking.wandb_logger import Place
from tests.helpers.compared import write_run

PLACE = Place("team", "sdpo", "compare mine", "https://wandb.example/team/sdpo/runs/xyz")


def with_id(folder: Path, name: str) -> None:
    """As a run that W&B knows."""
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"wandb_id": name}))


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        with_id(write_run(runs, f"a{seed}", f"seed={seed}"), f"id-a{seed}")
    with_id(write_run(runs, "b", algorithm="grpo", rate=2400), "id-b")
    with_id(write_run(runs, "elsewhere", "learner.lr=0.002", "tracking.project=other"), "id-e")
    write_run(runs, "smoke", "run.steps=4")
    return compare(choose(["livecodebench"], runs), runs / "page")


@pytest.fixture(scope="module")
def blocks(comparisons) -> list[dict]:
    report = compose(comparisons, PLACE)
    assert (report.entity, report.project, report.title) == ("team", "sdpo", comparisons[0].title)
    return report._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)["blocks"]


def texts(blocks: list[dict]) -> str:
    return json.dumps(blocks, ensure_ascii=False)


def test_the_headline_and_a_link_to_the_run_come_first(comparisons, blocks):
    opening, headline, *_ = (block for block in blocks if block["children"] != [{"text": ""}])
    (link,) = (child for child in opening["children"] if child.get("type") == "link")
    assert (link["url"], link["children"]) == (PLACE.url, [{"text": "compare mine"}])
    assert headline["children"] == [{"text": comparisons[0].sentences[0]}]


def test_each_label_is_a_line_of_pass_at_k_against_generations(blocks):
    grid = next(block["metadata"] for block in blocks if block["type"] == "panel-grid")
    shown = {each["name"]: each["filters"]["filters"][0] for each in grid["runSets"]}
    assert {name: one["value"] for name, one in shown.items()} == {"SDPO": ["id-a0", "id-a1"], "GRPO": ["id-b"]}
    assert all((one["key"]["name"], one["op"]) == ("name", "IN") for one in shown.values())
    assert all(each["grouping"] == [{"section": "run", "name": "group"}] for each in grid["runSets"])
    (panel,) = grid["panelBankSectionConfig"]["panels"]
    config = panel["config"]
    assert (config["xAxis"], config["metrics"]) == ("generations", ["eval/train/pass@1"])
    assert (config["groupAgg"], config["groupArea"], config["yAxisMax"]) == ("mean", "minmax", 1)
    colours = {key.partition("-")[2]: colour for key, colour in grid["customRunColors"].items()}
    assert set(colours) == {"group:livecodebench"} and len(grid["customRunColors"]) == 2


def test_what_is_missing_and_what_is_kept_apart_is_named(comparisons, blocks):
    said = texts(blocks)
    assert "Not in the charts, because they are not in this project: elsewhere." in said
    assert "Not in the charts, because they are not in this project: smoke." in said
    assert f"Kept apart: {'; '.join(comparisons[1].apart.differs)}." in said
    tables = [block["content"] for block in blocks if block["type"] == "markdown-block"]
    assert any("| algorithm.name | sdpo | sdpo | grpo |" in line for table in tables for line in table.splitlines())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_without_a_server_or_the_package_it_is_refused_before_anything_is_written(
    offline, tmp_path, monkeypatch, capsys
):
    write_run(tmp_path, "a")
    command = ["compare", "livecodebench", "--wandb-report", "--runs", str(tmp_path)]
    assert main(command) == 2 and "W&B is offline here. Log in" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(command) == 2 and "pip install wandb-workspaces" in capsys.readouterr().err
    assert not (tmp_path / "compare").exists()
