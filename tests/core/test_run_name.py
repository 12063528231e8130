"""Names of runs that were not given one, and one command for several seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.config.files import find_recipe
from sdpo.config.run_name import LONGEST, named


def name(*overrides: str, file: Path | None = None) -> str:
    return named(file or find_recipe("livecodebench", "sdpo"), "cpu", overrides).name


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "livecodebench-sdpo-seed0"),
        (("seed=2",), "livecodebench-sdpo-seed2"),
        # what decides about no number, and how long it runs, leave it the same run
        (("learner.ranks=2", "run.steps=160", "tracking.wandb=disabled"), "livecodebench-sdpo-seed0"),
        (("teacher.kind=ema", "rollout.responses=4"), "livecodebench-sdpo-seed0"),  # the recipe's own
        (("learner.lr=1e-3",), "livecodebench-sdpo-seed0"),
        (("teacher.rate=0.5", "seed=1", "teacher.rate=0.05"), "livecodebench-sdpo-teacher.rate=0.05-seed1"),
        (("evaluation.ks=[1,2]", "algorithm.name=sdpo"), "livecodebench-sdpo-evaluation.ks=1,2-seed0"),
        (("reference.coefficient=1e-2",), "livecodebench-sdpo-reference.coefficient=0.01-seed0"),
        (("teacher.rate=1", "learner.lr=0.1"), "livecodebench-sdpo-learner.lr=0.1-teacher.rate=1.0-seed0"),
        (("teacher.rate=0.5", "name=mine"), "mine"),
        (("model.path=/some where/x",), "livecodebench-sdpo-model.path=_some_where_x-seed0"),
    ],
)  # fmt: skip
def test_a_name_says_what_differs_from_the_recipe(overrides, expected):
    assert name(*overrides) == expected


def test_the_order_of_options_is_no_difference_and_long_names_are_cut():
    options = [
        f"{option}=0.123456" for option in ("learner.lr", "learner.weight_decay", "teacher.rate", "rollout.top_p")
    ]
    options += ["rollout.temperature=0.654321", "learner.clip_grad_norm=0.5"]
    long = name(*options)
    assert long == name(*reversed(options)) and len(long) <= LONGEST + len("livecodebench-sdpo--seed0")
    assert long != name(*options[:-1], "rollout.top_k=8")


def test_a_recipe_that_needs_its_options_gets_a_name_as_well(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: recipes/livecodebench/sdpo.yaml\nrecipe: mine\nprofiles: {cpu: {evaluation: {ks: [1, 8]}}}"
    )
    assert name("evaluation.samples=8", file=file) == "mine-sdpo-evaluation.samples=8-seed0"


def dry(capsys, *words: str) -> tuple[int, list[str], str]:
    """Exit status, the names of the runs that a dry run plans, and what was wrong."""
    status = main(["train", "livecodebench", "--profile", "cpu", "--dry-run", *words])
    said = capsys.readouterr()
    return status, [line.split(": ")[1] for line in said.out.splitlines() if line.startswith("Run ")], said.err


def test_seeds_are_runs_of_their_own(capsys):
    assert dry(capsys, "--seeds", "0,2", "name=x")[:2] == (0, ["x-seed0", "x-seed2"])
    file = find_recipe("livecodebench", "sdpo")
    unnamed = named(file, "cpu", ["teacher.rate=0.5", "seed=3"], "-seed3")
    assert unnamed.name == "livecodebench-sdpo-teacher.rate=0.5-seed3" and unnamed.seed == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0,1", "seed=3"], "seed=3 and --seeds 0,1 contradict each other"),
        (["--seeds", "0,x"], "give whole numbers with commas between them"),
        (["--seeds", "1,1"], "each once"),
        (["--seeds", ""], "give whole numbers"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(capsys, words, says):
    status, names, error = dry(capsys, *words)
    assert (status, names) == (2, []) and says in error
