"""`sdpo compare --wandb`, offline, against the real package; what it wrote is read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sdpo.cli import main
from tests.helpers.compared import write_run
from tests.helpers.wandb_file import read_offline


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_the_comparison_is_a_run_with_curves_tables_and_the_page(tmp_path: Path, capsys):
    for seed in (0, 1):
        write_run(tmp_path, f"a{seed}", f"seed={seed}")
    write_run(tmp_path, "b", algorithm="grpo", rate=2400)
    write_run(tmp_path, "smoke", "run.steps=4")
    out = tmp_path / "compare" / "mine"
    assert main(["compare", "livecodebench", "--wandb", "--runs", str(tmp_path), "--out", str(out)]) == 0
    assert "W&B is offline; upload later with: wandb sync" in capsys.readouterr().out
    written = read_offline(out)
    (run,) = written.run
    assert (run.project, run.run_group, run.job_type) == ("sdpo", "livecodebench", "compare")
    items = [item for row in written.history for item in row.item]
    paths = {item.nested_key[0]: json.loads(item.value_json) for item in items if item.nested_key[1:] == ["path"]}
    (files,) = out.glob("wandb/offline-run-*/files")

    def content(name: str) -> str:
        return (files / paths[name]).read_text()

    assert content("page") == (out / "index.html").read_text()
    assert content("apart-1/page") == (out / "apart-1" / "index.html").read_text()
    differences = json.loads(content("differences"))
    assert differences["columns"] == ["setting", "SDPO", "GRPO"]
    assert ["algorithm.name", "sdpo", "grpo"] in differences["data"]
    ratios = json.loads(content("generations to a pass rate, training problems"))
    assert ratios["columns"] == ["pass@1", "SDPO", "GRPO", "GRPO ÷ SDPO"] and len(ratios["data"]) == 4
    curves = json.loads(content("pass_at_k_generations/training problems, pass@1_table"))["data"]
    data = json.loads((out / "data.json").read_text())
    lines = next(f for f in data["figures"] if f["name"] == "pass_at_k_generations")["panels"][0]["lines"]
    mean = next(line["points"] for line in lines if (line["label"], line["seed"]) == ("sdpo", None))
    assert sorted([x, y] for x, label, y in curves if label == "SDPO") == sorted(mean)


def test_without_the_package_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["compare", "x", "--wandb", "--runs", str(tmp_path)]) == 2
    assert "pip install wandb" in capsys.readouterr().err
