"""`sdpo export`: the folder, its model card, and the way to the hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from sdpo.cli import main
from sdpo.config.files import load_resolved
from sdpo.config.paths import PROJECT
from sdpo.evaluation import EvaluationResult, ProblemResult
from sdpo.report.card import model_card
from sdpo.report.runs import load_run
from sdpo.training.checkpoints import Checkpoints
from tests.helpers.checkpoints import write
from tests.helpers.compared import write_run
from tests.helpers.hub import hub

BASE = """\
---
license: other
license_name: my-licence
license_link: https://example.org/licence
---
# A base model
"""


@pytest.fixture
def run(tmp_path):
    """A run with a measured checkpoint of step 40, whose base model has a card of its own."""
    base = tmp_path / "base"
    shutil.copytree(PROJECT / "policies" / "minicode", base)
    (base / "README.md").write_text(BASE)
    folder = write_run(tmp_path / "runs", "mine", f"model.path={base}", problems=8)
    held_out = {0: 1, 40: 3}
    for step, passed in held_out.items():
        counted = tuple(ProblemResult(f"h{p}", 4, min(4, passed + p % 2)) for p in range(6))
        result = EvaluationResult(counted, (1, 4), sampling={"temperature": 0.6, "top_p": 0.95})
        result.save(folder / "evaluations" / f"step-{step:06d}-held_out.json")
    write(Checkpoints(folder / "checkpoints", 1), 40, best=True)
    return folder


def export(run, out, *words) -> int:
    return main(["export", str(run), str(out), *words])


def test_the_card_says_what_stands_in_the_run(run, tmp_path, capsys):
    assert export(run, tmp_path / "out") == 0
    assert "the model card" in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "out" / "README.md")
    front, text = card.data.to_dict(), card.text
    assert (front["license"], front["license_name"], front["library_name"]) == ("other", "my-licence", "transformers")
    assert "base_model" not in front  # a folder's name means nothing on the hub
    assert {"sdpo", "self-distillation"} <= set(front["tags"])
    results = {(r.dataset_split, r.metric_name): r.metric_value for r in card.data.eval_results}
    now = EvaluationResult.load(run / "evaluations" / "step-000040-held_out.json")
    assert results["held_out", "pass@1"] == round(now.pass_at_k[1].value, 4) and results["held_out", "pass@4"] == 1.0
    before = EvaluationResult.load(run / "evaluations" / "step-000000-held_out.json")
    assert f"| held-out problems | pass@1 | {before.pass_at_k[1]} | {now.pass_at_k[1]} | 6 × 4 |" in text
    assert (
        "temperature 0.6, top_p 0.95" in text and "commit abc123" in text and "`tasks/training` | 8 tasks, bb |" in text
    )
    assert "40 of 80 steps, 2,560 sampled responses" in text and "the model folder `base`" in text.lower()
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["seed"] == 0
    curve = [line for line in text.splitlines() if line.startswith("| 40 | 2,560 | ")]
    assert len(curve) == 1 and str(now.pass_at_k[1]) in curve[0]
    picture = re.search(r"## Curve\n\n!\[[^]]+\]\(([^)]+)\)\n", text)[1]
    assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_card_says_how_much_was_trained(run, tmp_path):
    assert "by sdpo" in (card := str(model_card(load_run(run), 40))) and ": all weights, 40 of" in card
    adapted = write_run(tmp_path / "runs", "adapted", "model.adapter={rank: 4}")
    assert ": a LoRA adapter of rank 4, 40 of" in str(model_card(load_run(adapted), 40))


def test_a_run_that_was_measured_once_has_no_curve(run, tmp_path):
    for file in (run / "evaluations").glob("*-train.json"):
        file.unlink()
    (run / "evaluations" / "step-000000-held_out.json").unlink()
    assert export(run, tmp_path / "out") == 0
    assert "## Curve" not in (tmp_path / "out" / "README.md").read_text()
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_base_model_and_data_of_the_hub_are_named(run, tmp_path):
    resolved = yaml.safe_load((run / "recipe.yaml").read_text())
    resolved["model"]["path"] = "some-owner/some-model"
    (run / "recipe.yaml").write_text(yaml.safe_dump(resolved))
    load_resolved(run / "recipe.yaml")
    assert export(run, tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "some-owner/some-model" and card.data.license is None
    cached = tmp_path / "hub" / "models--an-owner--a-model" / "snapshots" / "123"
    cached.mkdir(parents=True)
    resolved["model"]["path"] = str(cached)
    (run / "recipe.yaml").write_text(yaml.safe_dump(resolved))
    assert export(run, tmp_path / "other") == 0
    assert ModelCard.load(tmp_path / "other" / "README.md").data.base_model == "an-owner/a-model"


def test_a_policy_that_was_not_evaluated_and_one_of_no_run(run, tmp_path, capsys):
    for file in (run / "evaluations").iterdir():
        file.unlink()
    assert export(run, tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "was not evaluated" in card.text and card.data.eval_results is None
    assert export(PROJECT / "policies" / "minicode", tmp_path / "plain") == 0
    assert "No model card was written" in capsys.readouterr().out


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """Of whoever runs the tests, neither token nor settings."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    ("words", "token", "offline", "says"),
    [
        (["--push-to-hub", "me/x"], "", False, "needs a token that may write"),
        (["--push-to-hub", "me/x/y"], "hf_secret", False, "--push-to-hub me/x/y: "),
        (["--push-to-hub", "me/x"], "hf_secret", True, "HF_HUB_OFFLINE is set"),
        (["--private"], "", False, "--private has no effect"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    run, tmp_path, monkeypatch, no_account, capsys, words, token, offline, says
):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert export(run, tmp_path / "out", *words) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_push_uploads_the_folder_and_its_card(run, tmp_path):
    """In a process of its own, which reads the environment as a user's does."""
    with hub() as server:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        given = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path / "home")}
        words = ["export", str(run), str(tmp_path / "out"), "--push-to-hub", "me/x", "--private"]
        command, environment = [sys.executable, "-m", "sdpo.cli", *words], {**kept, **given, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"Pushed to {server.address}/me/x" in done.stdout, done.stdout + done.stderr
    out = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert server.files == out and "README.md" in out
    created = next(json.loads(body) for path, _, body in server.asked if path == "/api/repos/create")
    assert created["name"] == "x" and (created.get("private") or created.get("visibility") == "private")
    assert {token for _, token, body in server.asked if body} == {"Bearer hf_secret"}
    assert "hf_secret" not in done.stdout + done.stderr


def test_a_push_that_the_hub_refuses_leaves_the_folder_and_says_how_to_go_on(
    run, tmp_path, monkeypatch, no_account, capsys
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub() as server:
        server.refuses = True
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        assert export(run, tmp_path / "out", "--push-to-hub", "me/x") == 2
    said = capsys.readouterr().err
    assert "could not be pushed to me/x (" in said and f"hf upload me/x {tmp_path / 'out'} ." in said
    assert (tmp_path / "out" / "README.md").exists()
