"""Whatever is given as an override, the answer is a recipe that reads back as itself, or a message: no traceback."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import strategies as st

from sdpo.config.files import dump, find_recipe, load_recipe, load_resolved, option_paths
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from tests.helpers.properties import holds_for

FILES = [("livecodebench", "sdpo"), ("livecodebench", "srpo"), ("math", "grpo"), ("choice", "sdpo"), ("gym", "grpo")]
OPTIONS = sorted({path for file in FILES for path in option_paths(
    Recipe, load_recipe(find_recipe(*file), "cpu").model_dump())})  # fmt: skip
NOT_FINITE = ["nan", ".nan", "NaN", "inf", ".inf", "-.inf", "-inf", "1e400", "-1e400", "Infinity"]
VALUES = [
    *NOT_FINITE, "", "~", "null", "0", "-1", "1", "3", "1e-3", "0.5", "1e308", "9" * 400, "1" * 5000, "true", "[]",
    "{}", "é", "[1, 2]", "[1, x, ~]",
    "{a: 1}", "{steps: 3}", "{start: .nan, steps: 2}", "2025-02-30", "[2024-01-01, 2025-01-01]",
    "&a [*a]", "*a", "!!python/object:os.system x", "!!binary x", "a: b: c", "'", '"', "\x00", "\ud800", "{[1]: 2}",
    "sdpo", "grpo", "ema", "live", "module:Class", "no_such_module:Class", "os:system", "path.py:f", "../..", "[" * 200,
]  # fmt: skip


def floats(value: Any):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from floats(item)
    elif isinstance(value, float):
        yield value


OVERRIDE = st.builds(
    lambda key, sign, value: f"{key}{sign}{value}",
    st.one_of(st.sampled_from(OPTIONS), st.text(max_size=12), st.sampled_from(OPTIONS).map(lambda o: o + ".x")),
    st.sampled_from(["=", "=", "=", "==", ""]),
    st.one_of(st.sampled_from(VALUES), st.text(max_size=20), st.integers().map(str), st.floats().map(repr)),
)


@holds_for(30, 2000, file=st.sampled_from(FILES), profile=st.sampled_from(["cpu", "gpu"]),
           overrides=st.lists(OVERRIDE, min_size=1, max_size=4))  # fmt: skip
def test_any_override_gives_a_recipe_or_a_message(file, profile, overrides):
    try:
        recipe = load_recipe(find_recipe(*file), profile, overrides)
    except UserError as error:
        assert str(error)
        return
    assert all(map(math.isfinite, floats(recipe.model_dump())))
    text = dump(recipe)
    assert load_resolved_text(text) == recipe


def load_resolved_text(text: str) -> Recipe:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text)
        return load_resolved(path)


def test_no_number_of_a_recipe_may_be_nan_or_infinite():
    """Every option that takes a float, of several algorithms and environments; all spellings in turn."""
    spellings, refused = itertools.cycle(NOT_FINITE), set()
    for file in FILES:
        path = find_recipe(*file)
        for option, given in numbers(load_recipe(path, "cpu").model_dump()):
            if isinstance(given, float) and option not in refused:
                with pytest.raises(UserError, match="finite"):
                    load_recipe(path, "cpu", [f"{option}={next(spellings)}"])
                refused.add(option)
    assert len(refused) > 25, refused
    for value in NOT_FINITE:
        for inner in (f"distillation.ramp={{start: {value}, steps: 2}}", f"learner.betas=[0.9, {value}]"):
            with pytest.raises(UserError, match="finite"):
                load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [inner])


def numbers(values: Any, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
