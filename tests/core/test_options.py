"""`sdpo options` and the page that it writes say what the schema and the recipes say."""

from __future__ import annotations

import pytest
import yaml

from sdpo.cli import main
from sdpo.config.files import find_recipe, load_recipe, option_paths
from sdpo.config.options import SHOWN_RECIPE, all_options, markdown, read_settings, select
from sdpo.config.paths import PROJECT
from sdpo.config.registry import DEFAULT_ALGORITHM
from sdpo.config.schema import Recipe
from sdpo.errors import UserError

OPTIONS = all_options()


def test_every_option_says_what_it_means():
    assert not [option.path for option in OPTIONS if not option.meaning]


def test_no_option_is_left_out():
    paths = {option.path for option in OPTIONS}
    assert set(option_paths(Recipe)) <= paths
    assert {"algorithm.mix", "algorithm.entropy_beta", "environment.reward", "environment.boxed"} <= paths


def test_the_page_is_what_the_command_writes(capsys):
    assert main(["options", "--markdown"]) == 0
    written = capsys.readouterr().out
    assert written == markdown(OPTIONS)
    assert written == (PROJECT / "docs" / "options.md").read_text(), "write it anew: sdpo options --markdown"


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_what_the_recipe_is_said_to_set_is_what_it_resolves_to(profile):
    recipe = load_recipe(find_recipe(SHOWN_RECIPE, DEFAULT_ALGORITHM), profile).model_dump(mode="json")
    compared = 0
    for option in OPTIONS:
        for setting in option.settings:
            if option.set_by == DEFAULT_ALGORITHM and setting.profile in ("", profile):
                value = recipe
                for name in option.path.split("."):
                    value = value[name]
                written = yaml.safe_load(setting.value)
                assert value == ([str(day) for day in written] if option.path == "data.window" else written), option
                compared += 1
    assert compared > 25


def test_a_value_is_read_with_the_comment_behind_it():
    text = "a: {b: 1}  # both\nprofiles:\n  gpu:\n    c:\n      d: [1, 2]   # Table: d\n  cpu: {c: 3}\n"
    assert [(path, s.profile, s.value, s.comment) for path, s in read_settings(text)] == [
        ("a.b", "", "1", "both"),
        ("c.d", "gpu", "[1, 2]", "Table: d"),
        ("c", "cpu", "3", ""),
    ]


def test_a_part_is_a_section_or_an_option(capsys):
    assert main(["options", "teacher", "learner.lr"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "teacher", "teacher.kind", "teacher.rate", "teacher.clock", "teacher.refresh", "teacher.placement",
        "teacher.ranks", "teacher.model", "learner.lr",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given, meant", [("lr", "learner.lr"), ("teacher.rat", "teacher.rate"), ("evalution", "evaluation")]
)
def test_an_unknown_option_is_told_what_was_meant(given, meant):
    with pytest.raises(UserError, match=f"There is no option {given}. Did you mean {meant}?"):
        select([given], OPTIONS)


def test_the_page_is_written_whole(capsys):
    assert main(["options", "teacher", "--markdown"]) == 2
    assert "leave out teacher" in capsys.readouterr().err
