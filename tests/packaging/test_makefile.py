"""The Makefile hands every key=value on to the command, unharmed, and refuses what it does not know."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from sdpo.config.files import option_paths
from sdpo.config.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """make as a user would call it: without what a surrounding `make test` leaves in the environment."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "RECIPE", "ALGORITHM", "PROFILE", "ARGS", "TESTS", "DRY_RUN")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def command(*arguments: str) -> list[str]:
    """The words that the last command of a dry run gets from the shell."""
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").strip().splitlines()
    return shlex.split(lines[-1])


def test_train_passes_recipe_flags_and_overrides():
    given = "RECIPE=livecodebench ALGORITHM=grpo PROFILE=cpu learner.lr=1e-3 seed=4 DRY_RUN=1"
    words = command("train", *given.split())
    assert words[:2] == [".venv/bin/sdpo", "train"]
    assert words[2:] == "--algorithm grpo --profile cpu --dry-run livecodebench learner.lr=1e-3 seed=4".split()


def test_plan_passes_the_machine_on():
    words = command("plan", *"RECIPE=livecodebench PROFILE=gpu GPUS=1 GPU_MEMORY=24 seed=4".split())
    assert words[1:] == "plan --profile gpu --gpus 1 --gpu-memory 24 livecodebench seed=4".split()


def test_seeds_and_runs_to_compare_arrive():
    assert command("train", "RECIPE=x", "SEEDS=0,1", "name=y")[2:] == ["--seeds", "0,1", "x", "name=y"]
    compared = command("compare", 'RUNS=a b:"my label" c*')
    assert compared == ["set", "-f;", ".venv/bin/sdpo", "compare", "a", "b:my label", "c*"]
    assert command("compare", "RECIPE=x", "RUNS=a:b")[4:] == ["x", "a:b"]
    assert "make compare RECIPE=" in make("compare").stderr


def test_defaults_stay_with_the_command():
    assert command("train", "RECIPE=livecodebench") == [".venv/bin/sdpo", "train", "livecodebench"]


@pytest.mark.parametrize(
    "value",
    ["1e-3", "", "[1, 2, 4]", "it's", 'say "x"', "a=b", "a  b=c", "$HOME", "$(shell echo no)", "`echo no`", "a;b",
     "a&b|c", "back\\slash", "#no comment", "*", "~", "%", "(1,2)", "{a: b}", "x y seed=9"],
)  # fmt: skip
def test_override_values_arrive_unharmed(value):
    assert command("train", "RECIPE=x", f"run.note={value}", "seed=1")[3:] == [f"run.note={value}", "seed=1"]


KEYS = sorted(set(option_paths(Recipe)))
# Names that the Makefile, make itself or the environment know, or once knew, and that are no recipe's.
NAMES = (
    "word words name names given key keys flag flags quote squote goal own used value call origin override define "
    "export SDPO OVERRIDES CHOICE RECIPES OWN BENCHES PYTHON_IN_VENV AR ARFLAGS AS CFLAGS CPPFLAGS CPP FC LD LDFLAGS "
    "LEX MAKE MAKECMDGOALS MAKEFILE_LIST MAKELEVEL CURDIR SUFFIXES VPATH RM HOME USER LANG TERM SHELL"
).split()


@pytest.mark.parametrize("goal", ["train RECIPE=x", "profile RECIPE=x", "eval MODEL=x"])
def test_every_option_of_a_recipe_arrives(goal):
    """Beside each other and with values that shells and make have plans for."""
    given = [f"{key}=a {key} 'b' \"c\" $HOME $(x) #d \\ seed=9 {{e}}" for key in KEYS]
    assert {"name", "seed", "learner.lr", "evaluation.thinking", "tracking.wandb"} <= set(KEYS)
    assert sorted(command(*goal.split(), *given)[3:]) == sorted(given)


@pytest.mark.parametrize("key", KEYS)
def test_an_option_arrives_by_itself(key):
    assert command("train", "RECIPE=x", f"{key}=v w")[2:] == ["x", f"{key}=v w"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_make_knows_too_swallows_nothing(name):
    """The recipe refuses it: it is no option."""
    words = command("train", "RECIPE=x", f"{name}=/bin/sh", "run.steps=1", "seed=1")
    assert words[:3] == [".venv/bin/sdpo", "train", "x"]
    assert sorted(words[3:]) == sorted([f"{name}=/bin/sh", "run.steps=1", "seed=1"])


def test_an_assignment_with_a_colon_arrives():
    assert command("train", "RECIPE=x", "name:=mine", "seed::=1")[3:] == ["name=mine", "seed=1"]


def test_the_environment_is_no_option(monkeypatch):
    for name in ("name", "seed", "words"):
        monkeypatch.setenv(name, "other")
    assert command("train", "RECIPE=x")[3:] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("train RECIPE=x MODEL=y", "make train makes no use of MODEL; it uses"),
        ("train RECIPE=x OUT=y", "makes no use of OUT"),
        ("compare RECIPE=x ALGORITHM=grpo", "makes no use of ALGORITHM"),
        ("profile RECIPE=x SEEDS=0,1", "makes no use of SEEDS"),
        ("test RECIPE=x", "makes no use of RECIPE"),
        ("setup PROFIL=gpu", "make setup does not know PROFIL"),
        ("clean name=x", "make clean does not know name"),
        ("train RECIPE=x MAKEOVERRIDES=y", "MAKEOVERRIDES"),
    ],
)
def test_what_a_goal_makes_no_use_of_is_refused(arguments, says):
    done = make(*arguments.split())
    assert done.returncode != 0 and says in done.stderr and not done.stdout.strip()


def test_a_value_with_a_line_break_is_refused():
    done = make("--dry-run", "train", "RECIPE=x", "name=a\nb")
    assert done.returncode != 0 and "the value of name has a line break" in done.stderr


def test_eval_passes_the_policy_and_overrides():
    words = command("eval", "MODEL=runs/a b", "RECIPE=minicode", "evaluation.samples=8")
    assert words == [".venv/bin/sdpo", "eval", "--recipe", "minicode", "runs/a b", "evaluation.samples=8"]


def test_inspect_passes_the_run_and_asks_for_one():
    words = command("inspect", "RUN=runs/a b", "ARGS=--text --step 5")
    assert words == [".venv/bin/sdpo", "inspect", "runs/a b", "--text", "--step", "5"]
    assert "make inspect RUN=runs/<name>" in make("inspect").stderr


def test_every_public_target_can_be_expanded():
    listed = [line.split()[1] for line in make("help").stdout.splitlines() if line.startswith("  make ")]
    assert {"train", "compare", "eval", "export", "test", "test-all", "lint", "setup", "doctor", "lock"} <= set(listed)
    for target in listed:
        done = make("--dry-run", target, "RECIPE=r", "MODEL=m", "RUN=r", "OUT=o")
        assert done.returncode == 0, done.stderr


def test_the_slow_tests_are_in_one_tier_only():
    both = ["-m", "pytest", "-q", "-n", "2", "--no-loadscope-reorder"]
    assert command("test", "TESTS=tests/core")[1:] == [*both, "-m", "not slow", "tests/core"]
    assert command("test-all", "TESTS=tests/core")[1:] == [*both, "tests/core"]


def test_without_a_recipe_it_says_what_to_write():
    done = make("train")
    assert done.returncode != 0
    assert "make train RECIPE=" in done.stderr and "livecodebench" in done.stderr
    assert "setup" not in done.stdout, "the set-up must not run before a call that cannot succeed"


def test_a_misspelt_variable_is_refused_where_no_recipe_would():
    done = make("test", "TEST=tests/packaging")
    assert done.returncode != 0
    assert "does not know TEST" in done.stderr


def test_a_misspelt_variable_reaches_the_recipe_otherwise():
    assert "ALGORITM=grpo" in command("train", "RECIPE=livecodebench", "ALGORITM=grpo")
