"""Threads of the processes that compute on CPUs sleep while they wait, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.waiting import NAMES, waiting
from sdpo.rollout.config import environment
from sdpo.training.placement import engine_options, plan_placement

RECIPE = find_recipe("livecodebench", "sdpo")


def environments(profile: str) -> list[dict[str, str]]:
    """Of an engine and of a learner's rank."""
    recipe = load_recipe(RECIPE, profile)
    learner = plan_placement(recipe, cpus=64, gpus=8).learner
    return [environment(engine_options(recipe)), learner.get("runtime_env", {}).get("env_vars", {})]


def test_on_cpus_engines_and_ranks_are_told(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert waiting()
    assert all(waiting().items() <= given.items() for given in environments("cpu"))
    assert not any(name in given for given in environments("gpu") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1000")
    assert waiting() == {}
    assert not any(each in given for given in environments("cpu") for each in NAMES)


def test_the_openmp_that_torch_loads_hears_it():
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    shown = {}
    for given in ({}, waiting({})):
        done = subprocess.run(
            [sys.executable, "-c", "import torch"],
            env=kept | {"OMP_DISPLAY_ENV": "verbose"} | given,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
        if not lines:
            pytest.skip("this torch computes without GNU's OpenMP")
        shown[bool(given)] = int(lines[0])
    assert shown[True] < shown[False]
