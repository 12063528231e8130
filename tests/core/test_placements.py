"""What a recipe says for so many GPUs."""

from __future__ import annotations

import pytest

from sdpo.config.files import RECIPES, find_recipe, load_recipe
from sdpo.config.hardware import known_gpus
from sdpo.config.run_name import named
from sdpo.errors import UserError
from sdpo.training.placement import gpus_needed, plan_placement

FILES = sorted(path for path in RECIPES.glob("*/*.yaml") if path.stem != "base")
SDPO = find_recipe("livecodebench", "sdpo")


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_fits_on_every_machine(path, gpus):
    recipe = load_recipe(path, "gpu", gpus=gpus)
    placement = plan_placement(recipe, cpus=8 * gpus, gpus=gpus)
    assert len(placement.bundles) == (recipe.learner.ranks if recipe.rollout.colocated else 0)


@pytest.mark.parametrize(
    "gpus, ranks, engines, colocated, adapter",
    [(1, 1, 1, True, True), (2, 1, 1, False, True), (4, 4, 4, True, False), (8, 4, 4, False, False)],
)
def test_the_table(gpus, ranks, engines, colocated, adapter):
    recipe = load_recipe(SDPO, "gpu", gpus=gpus)
    rollout = recipe.rollout
    assert (recipe.learner.ranks, rollout.engines, rollout.colocated) == (ranks, engines, colocated)
    assert (recipe.model.adapter is not None) == adapter
    assert recipe.learner.lr == pytest.approx(1e-5 if adapter else 1e-6)


@pytest.mark.parametrize(("gpus", "at_once"), [(1, 1), (2, 8), (3, 8), (4, 1), (8, 1)])
def test_a_discovery_searches_side_by_side_where_engines_load_adapters(gpus, at_once):
    recipe = load_recipe(find_recipe("discover-livecodebench", "sdpo"), "gpu", gpus=gpus)
    assert (recipe.searched_at_once, recipe.rollout.adapter) == (at_once, "merged" if at_once == 1 else "loaded")


def test_a_teacher_of_its_own_takes_gpus_of_its_own():
    own = ("teacher.placement=own", "teacher.ranks=2")
    recipe = load_recipe(SDPO, "gpu", own, gpus=8)
    assert gpus_needed(recipe) == 10 and gpus_needed(recipe, learner=False) == 4
    assert plan_placement(recipe, cpus=80, gpus=10).teacher == {"num_cpus": 1, "num_gpus": 1}
    with pytest.raises(UserError, match="needs 10 GPUs.*2 rank.*teacher.placement=learner"):
        plan_placement(recipe, cpus=80, gpus=8)
    colocated = load_recipe(SDPO, "gpu", own, gpus=4)
    assert gpus_needed(colocated) == 6 and len(plan_placement(colocated, cpus=80, gpus=6).bundles) == 4
    on_cpu = plan_placement(load_recipe(SDPO, "cpu", own), cpus=8, gpus=0)
    assert on_cpu.teacher == on_cpu.learner and "2 rank(s) of a teacher" in on_cpu.description


def test_a_number_between_takes_the_next_lower_one_and_an_unknown_one_the_plain_section():
    assert load_recipe(SDPO, "gpu", gpus=3).learner == load_recipe(SDPO, "gpu", gpus=2).learner
    assert load_recipe(SDPO, "gpu") == load_recipe(SDPO, "gpu", gpus=8)
    assert load_recipe(SDPO, "cpu", gpus=1) == load_recipe(SDPO, "cpu")


def test_the_command_line_comes_last():
    recipe = load_recipe(SDPO, "gpu", ["model.adapter=null", "learner.lr=2e-6"], gpus=1)
    assert recipe.model.adapter is None and recipe.learner.lr == pytest.approx(2e-6)


def test_a_run_that_the_number_makes_another_one_has_another_name():
    assert named(SDPO, "gpu", [], gpus=8).name == named(SDPO, "gpu", []).name == "livecodebench-sdpo-seed0"
    assert named(SDPO, "gpu", [], gpus=4).name == "livecodebench-sdpo-seed0"  # the same numbers, computed elsewhere
    assert named(SDPO, "gpu", [], gpus=1).name == "livecodebench-sdpo-learner.lr=1e-05-model.adapter.rank=32-seed0"


def test_own_files_may_say_what_they_want(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: recipes/livecodebench/sdpo.yaml\nprofiles:\n  gpu-1:\n    model: {adapter: {rank: 4}}\n")
    assert load_recipe(own, "gpu", gpus=1).model.adapter.rank == 4
    assert load_recipe(own, "gpu", gpus=4).model.adapter is None
    own.write_text("extends: recipes/livecodebench/sdpo.yaml\nprofiles: {gpu-0: {}}\n")
    with pytest.raises(UserError, match="unknown profiles"):
        load_recipe(own, "gpu")


def test_how_many_are_known(monkeypatch, tmp_path):
    listed = tmp_path / "nvidia-smi"
    listed.write_text("#!/bin/sh\necho 'GPU 0: one'\necho 'GPU 1: another'\n")
    listed.chmod(0o755)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert known_gpus("gpu") == 2 and known_gpus("cpu") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert known_gpus("gpu") == 1
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert known_gpus("gpu") is None
