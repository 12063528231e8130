"""What a run may go on with in another way, what is refused, and what is noted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdpo.cli import main
from sdpo.config.files import find_recipe, load_recipe, load_resolved, option_paths
from sdpo.config.paths import PROJECT, locate
from sdpo.config.resume import FREE, refused
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset
from sdpo.errors import UserError
from sdpo.tracking import FINISHED, RunFolder
from sdpo.training import inputs, resume
from sdpo.training.checkpoints import Checkpoints
from sdpo.types import Task
from tests.helpers.checkpoints import names, write

CONSOLE = SimpleNamespace(message=lambda text: SAID.append(text), phase=lambda *a, **k: Phase())
SAID: list[str] = []


class Phase:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ("run.steps=40", "name=run", *overrides))


def tasks(*ids: str) -> list[Task]:
    return [Task(i, ({"role": "user", "content": f"Solve {i}."},), content={"tests": [1, (2, b"3")]}) for i in ids]


DATA = Dataset(tasks("a", "b", "c"), tasks("d"), "test")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run that was begun, and saved after steps 4 and 10."""
    SAID.clear()
    with RunFolder(tmp_path / "run") as folder:
        resume.begin(recipe(), DATA, folder, CONSOLE)
        for step in range(1, 12):
            folder.append_metrics({"step": step})
    write(Checkpoints(folder.checkpoints, 1), 4)
    write(Checkpoints(folder.checkpoints, 1), 10)
    return tmp_path / "run"


def resumed(path: Path, new: Recipe, data: Dataset = DATA) -> RunFolder:
    SAID.clear()
    with RunFolder(path) as folder:
        resume.resume(new, data, folder, CONSOLE)
    return folder


def test_every_free_option_is_one():
    assert FREE <= set(option_paths(Recipe))


HARMLESS = (
    "learner.ranks=4", "learner.zero_stage=3", "rollout.engines=2", "run.checkpoint_every=3", "run.keep_checkpoints=5",
    "run.steps=60", "run.steps=20", "tracking.wandb=disabled", "learner.micro_batch_tokens=999", "sandbox.workers=1",
)  # fmt: skip


@pytest.mark.parametrize("override", HARMLESS)
def test_what_only_decides_where_and_how_fast_may_change(override):
    assert refused(recipe(), recipe(override)) == []


HARMFUL = (
    "learner.lr=1e-7", "seed=1", "algorithm.mix=0.5", "model.path=elsewhere", "rollout.temperature=0.5",
    "rollout.responses=3", "teacher.rate=0.5", "run.questions=8", "data.world_seed=9", "evaluation.samples=7",
    "rollout.staleness=1", "learner.updates_per_batch=2", "reference={coefficient: 0.1}", "sandbox.cpu_time_s=1.25",
    "learner.schedule=cosine",
)  # fmt: skip


@pytest.mark.parametrize("override", HARMFUL)
def test_what_decides_about_the_result_is_refused_with_old_and_new(override):
    said = refused(recipe(), recipe(override))
    assert said and all(" → " in line for line in said)
    assert any(line.startswith(override.partition("=")[0]) for line in said), said


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("learner.schedule=linear", "learner.schedule=linear"),
        ("learner.schedule=cosine", "learner.schedule=cosine"),
        ("distillation.ramp={start: 0, steps: 40}", "distillation.ramp"),
        ("distillation.ramp={start: 0, steps: 10}", None),
    ],
)
def test_more_steps_only_where_nothing_depends_on_their_number(setting, named):
    said = refused(recipe(setting), recipe(setting, "run.steps=60"))
    assert said == ([] if named is None else [f"run.steps: 40 → 60, on which {named} depends"])


def test_a_resumed_run_notes_what_goes_on_otherwise(run):
    folder = resumed(run, recipe("learner.ranks=2", "run.steps=60"))
    noted = {c["option"]: (c["step"], c["old"], c["new"]) for c in folder.info.changes if c["option"] != "commit"}
    assert noted == {"learner.ranks": (10, 1, 2), "run.steps": (10, 40, 60)}
    assert load_resolved(run / "recipe.yaml") == recipe("learner.ranks=2", "run.steps=60")
    assert any("learner.ranks: 1 → 2" in text for text in SAID)
    assert [row["step"] for row in folder.metrics] == list(range(1, 11))


def test_the_code_is_compared_and_a_difference_told(run):
    content = json.loads((run / "run.json").read_text()) | {"commit": "0123456789ab"}
    (run / "run.json").write_text(json.dumps(content))
    folder = resumed(run, recipe())
    assert any("commit 0123456789ab → " in text for text in SAID)
    assert folder.info.changes[0]["option"] == "commit" and folder.info.changes[0]["old"] == "0123456789ab"


def test_rows_after_the_checkpoint_that_is_really_used_are_cut(run):
    (run / "checkpoints" / "step-000010" / "trainer.json").write_text("{")
    folder = resumed(run, recipe())
    assert [row["step"] for row in folder.metrics] == [1, 2, 3, 4]
    assert any("costs 6 steps" in text for text in SAID) and any("after step 4" in text for text in SAID)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Dataset(tasks("a", "b"), tasks("d"), "test"), "tasks/training: 3 tasks, .* → 2 tasks, "),
        (Dataset(tasks("a", "c", "b"), tasks("d"), "test"), "tasks/training: 3 tasks, .* → 3 tasks, "),
        (Dataset(tasks("a", "b", "c"), tasks("e"), "test"), "tasks/evaluation"),
    ],
)
def test_other_tasks_are_refused(run, data, said):
    with pytest.raises(UserError, match=said):
        resumed(run, recipe(), data)
    assert len(RunFolder(run).metrics) == 11


def test_the_content_of_a_task_counts_and_not_its_place_in_memory():
    one, again = tasks("a"), tasks("a")
    assert inputs.fingerprint(one) == inputs.fingerprint(again)
    again[0].content["tests"][1] = (2, b"4")
    assert inputs.fingerprint(one) != inputs.fingerprint(again)


def test_another_model_in_the_same_folder_is_refused(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(locate("policies/minicode"), model)
    settings = recipe(f"model.path={model}")
    with RunFolder(tmp_path / "run") as folder:
        resume.begin(settings, DATA, folder, CONSOLE)
    resumed(tmp_path / "run", settings)
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model/model.safetensors: \w{32} → \w{32}.*--fork"):
        resumed(tmp_path / "run", settings)


def test_code_of_ones_own_is_compared_too(tmp_path):
    (tmp_path / "rows.py").write_text("rows = list\n")
    reward = f"environment.reward={tmp_path}/rows.py:rows"
    settings = load_recipe(PROJECT / "docs" / "examples" / "sums.yaml", "cpu", (reward, "name=run"))
    with RunFolder(tmp_path / "run") as folder:
        resume.begin(settings, DATA, folder, CONSOLE)
    (tmp_path / "rows.py").write_text("rows = tuple\n")
    folder = resumed(tmp_path / "run", settings)
    assert any("warning: the code is not the one" in text and "rows.py" in text for text in SAID)
    assert folder.info.changes[0]["option"] == f"code/{tmp_path}/rows.py"
    assert resumed(tmp_path / "run", settings).info.changes == folder.info.changes


class Curriculum(Dataset):
    def training(self, progress: float):
        return self.train[:1] if progress < 0.5 else self.train[1:]


def test_more_steps_are_refused_where_the_tasks_depend_on_them(run):
    data = Curriculum(tasks("a", "b", "c"), tasks("d"), "test")
    resumed(run, recipe(), data)
    with pytest.raises(UserError, match="run.steps: 40 → 60, on which the tasks of step 21 depend"):
        resumed(run, recipe("run.steps=60"), data)


def test_fewer_steps_than_are_done_are_refused(run):
    with pytest.raises(UserError, match="run.steps=6, but step 10 is done"):
        resumed(run, recipe("run.steps=6"))


# --- forks -----------------------------------------------------------------------------------------------------------
def test_a_fork_begins_with_the_checkpoint_of_another_run(run, tmp_path):
    settings = recipe("learner.lr=1e-7", "name=lower")
    with RunFolder(tmp_path / "lower") as folder:
        resume.begin(settings, DATA, folder, CONSOLE, source=run)
    assert folder.info.forked_from == f"{run}, step 10"
    assert load_resolved(folder.path / "recipe.yaml") == settings and folder.metrics == []
    checkpoints = Checkpoints(folder.checkpoints, 1)
    copied = checkpoints.usable(pytest.fail)
    assert copied.name == "step-000010"
    state, before = Checkpoints.state(copied), Checkpoints.state(run / "checkpoints" / "step-000010")
    assert (state.step, state.generations, state.random_state) == (10, 640, before.random_state)
    assert state.best_value == -1  # what was best in the other run counts no more
    assert names(Checkpoints(run / "checkpoints", 1)) == ["step-000004", "step-000010"]
    resumed(folder.path, settings)


def command(run: Path, *arguments: str) -> int:
    where = (f"run.directory={run.parent}", "name=run", "run.steps=40")
    return main(["train", "livecodebench", "--profile", "cpu", *where, *arguments])


def test_the_command_refuses_and_names_the_remedies(run, capsys):
    assert command(run, "learner.lr=1e-7") == 2
    said = capsys.readouterr().err
    assert "learner.lr: " in said and "→ 1e-07" in said and "--fork" in said and "--fresh" in said


def test_the_command_says_when_nothing_is_left(run, capsys):
    content = json.loads((run / "run.json").read_text()) | {"status": FINISHED}
    (run / "run.json").write_text(json.dumps(content))
    assert command(run, "learner.ranks=2") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_fork_needs_a_run_and_a_free_name(run, capsys):
    assert command(run, "--fork", "new", "name=nowhere") == 2
    assert "no run in" in capsys.readouterr().err
    shutil.copytree(run, run.parent / "taken")
    assert command(run, "--fork", "taken") == 2
    assert "holds another run already" in capsys.readouterr().err
