"""Names that become folders, refused in the dry run already."""

from __future__ import annotations

import pytest

from sdpo.cli import main
from sdpo.cli.evaluate import _name
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.names import check_file_name
from sdpo.errors import UserError

BAD = [
    "../../x",
    "a/b",
    "/etc/x",
    "..",
    ".",
    ".hidden",
    "-rf",
    "a\nb",
    "a\x1b[31m",
    "a b",
    "a\\b",
    "x" * 201,
    "a\0",
    "é" * 101,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_could_leave_its_folder_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        check_file_name("name", name)


@pytest.mark.parametrize("name", ["run-1", "lr=1e-5", "a.b_c", "läuft", "実験3", "7"])
def test_ordinary_names_are_taken(name):
    check_file_name("name", name)


@pytest.mark.parametrize("project", ["a/b", "a\nb", "a%b"])
def test_a_project_that_wandb_would_refuse_is_refused_before_anything_starts(project):
    with pytest.raises(UserError, match="project"):
        load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [f"tracking.project={project}"])


def test_the_dry_run_refuses_what_training_would_refuse(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "livecodebench", "--profile", "cpu", "--dry-run", "name=../../x"]) == 2
    assert "name='../../x'" in capsys.readouterr().err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(elsewhere)
    assert main(["train", "livecodebench", "--profile", "cpu", "--dry-run", "name=linked"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert main(["compare", "../../etc"]) == 2
    assert "There is no run '../../etc', and none of a recipe of that name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "name"),
    [("runs/x", "x"), ("runs/x/checkpoints/last", "x-last"), ("runs/x/..", "runs"), ("runs/x/checkpoints/..", "x")],
)
def test_results_of_an_evaluation_lie_under_the_policys_name(policy, name):
    from pathlib import Path

    assert _name(Path(policy)) == name


@pytest.mark.parametrize("missing", ["recipe.yaml", "run.json"])
def test_a_run_folder_that_lost_a_file_is_a_message(missing, tmp_path, monkeypatch, capsys):
    from sdpo.tracking import RunFolder, RunInfo

    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ["name=r"])
    with RunFolder(tmp_path / "runs" / "r") as run:
        info = RunInfo.collect(recipe="livecodebench", algorithm="sdpo", seed=0, profile="cpu")
        run.create(info, recipe.model_dump(mode="json"))
        run.append_metrics({"step": 1})
    if missing == "run.json":
        (run.path / missing).write_text("")
    else:
        (run.path / missing).unlink()
    for command in (["train", "livecodebench", "--profile", "cpu", "name=r"], ["compare", "livecodebench"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert missing in said and "Traceback" not in said
