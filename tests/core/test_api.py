"""sdpo from Python: what a call becomes, and what it says when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdpo
from sdpo.api.commands import as_overrides, run_folder
from sdpo.cli import main
from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.tracking import RunFolder, RunInfo
from sdpo.tracking.rollouts import write_rollouts

OPTIONS = {
    "run": {"steps": 3, "directory": Path("elsewhere")}, "learner": {"lr": 1e-05}, "name": "1e3", "seed": 4,
    "evaluation": {"ks": [1, 2], "at_start": False}, "teacher": {"clock": None, "kind": "frozen", "rate": None},
}  # fmt: skip


def test_options_arrive_as_they_were_given():
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", as_overrides(OPTIONS))
    assert (recipe.run.steps, recipe.run.directory, recipe.learner.lr) == (3, "elsewhere", 1e-5)
    assert (recipe.name, recipe.seed, recipe.evaluation.ks, recipe.evaluation.at_start) == ("1e3", 4, (1, 2), False)
    assert recipe.teacher is not None and (recipe.teacher.kind, recipe.teacher.rate) == ("frozen", None)


@pytest.mark.parametrize("options", [{}, {"run": {"steps": 3}}, {"learner": {"lr": 1e-5}, "seed": 2}, {"name": "mine"}])
def test_the_run_that_is_handed_back_is_the_commands(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    overrides = as_overrides(options)
    assert main(["train", "livecodebench", "--profile", "cpu", "--dry-run", *overrides]) == 0
    said = capsys.readouterr().out.split()
    assert str(run_folder("livecodebench", None, "cpu", overrides)) == said[said.index("folder") + 1]


@pytest.mark.parametrize("quiet", [True, False])
def test_a_refusal_is_an_error_with_the_commands_own_words(tmp_path, monkeypatch, capfd, quiet):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"unknown option learner\.lrr\. Did you mean learner\.lr\?"):
        sdpo.train(profile="cpu", quiet=quiet, learner={"lrr": 1})
    with pytest.raises(UserError, match="no-such-model"):
        sdpo.evaluate("no-such-model", profile="cpu", quiet=quiet)
    assert ("no-such-model" in capfd.readouterr().out) != quiet
    assert not list(tmp_path.iterdir())


def test_a_run_is_read_as_tables(tmp_path):
    recipe = load_recipe(find_recipe("livecodebench", "grpo"), "cpu")
    with RunFolder(tmp_path / "run") as folder:
        folder.create(
            RunInfo.collect(recipe="r", algorithm="grpo", seed=0, profile="cpu"), recipe.model_dump(mode="json")
        )
        folder.append_metrics({"step": 1, "generations": 4, "wall_clock_s": 1.0, "train/pass_rate": 0.5})
        folder.append_metrics({"step": 2, "generations": 8, "wall_clock_s": 2.0, "train/pass_rate": None})
        for step in (1, 2):
            write_rollouts(folder.rollouts, step, [{"problem_id": "a", "response": f"r{step}", "passed": step == 2}])
        folder.set_status("finished")
    run = sdpo.load_run(tmp_path / "run")
    assert run.status == "finished" and run.recipe == recipe
    metrics = run.metrics()
    assert list(metrics["step"]) == [1, 2] and metrics["train/pass_rate"].isna().tolist() == [False, True]
    assert run.rollouts()["response"].tolist() == ["r1", "r2"]
    assert run.rollouts([2])["passed"].tolist() == [True]
    with pytest.raises(UserError, match=r"no rollouts of step 3.*\[1, 2\]"):
        run.rollouts([3])
    page = sdpo.inspect(run.path)
    assert page == tmp_path / "run" / "inspect.html" and page.stat().st_size > 1000
    with pytest.raises(UserError, match=r"no run in .*run\.json"):
        sdpo.load_run(tmp_path)


def test_the_package_offers_its_functions():
    assert {"Run", "Sandbox", "evaluate", "inspect", "load_run", "train"} <= set(dir(sdpo))
