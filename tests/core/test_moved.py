"""Options that have moved: what was written before is read, what is written now is refused with the new name."""

from __future__ import annotations

import pytest
import yaml

from sdpo.config.files import dump, find_recipe, load_recipe, load_resolved
from sdpo.config.moved import TABLE
from sdpo.errors import UserError

NOISE = "studies.feedback_noise:SDPO"
SEQUENCE = "studies.sequence:MinicodeSequence"


def recipe(algorithm: str = "sdpo", *overrides: str):
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", overrides)


def written_before(tmp_path, made, changes: dict[str, object], environment: bool = False):
    """The run folder's recipe as an earlier version wrote it: every option spelled out, no section environment."""
    values = yaml.safe_load(dump(made))
    if not environment:
        del values["environment"]
    before = {"data.families": ["minicode"], "context.feedback_noise": 0.0, "algorithm.mix": None}
    before |= {"algorithm.entropy_beta": None}
    for path, value in {**before, **changes}.items():
        section, option = path.split(".")
        if option in ("mix", "entropy_beta") and option in values[section]:
            continue
        values[section][option] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo", "srpo", "opsd", "sdft", "sft"])
def test_a_run_folder_of_before_is_the_recipe_of_today(algorithm, tmp_path):
    made = recipe(algorithm)
    assert load_resolved(written_before(tmp_path, made, {})) == made
    assert made.environment.kind == "minicode"  # as data.source says


@pytest.mark.parametrize(
    ("algorithm", "today", "before"),
    [
        ("grpo", (), {"policy_gradient.variant": "grpo"}),
        ("sdpo", ("context.template=demonstration",), {"context.template": "sdft"}),
        ("sdpo", ("context.template=reference",), {"context.template": "opsd"}),
        ("sdpo", (f"algorithm.name={NOISE}", "algorithm.noise=0.3"), {"context.feedback_noise": 0.3}),
        (
            "sdft",
            (f"environment.kind={SEQUENCE}", "environment.families=[minicode,minicode-texts]"),
            {"data.families": ["minicode", "minicode-texts"]},
        ),
    ],
)
def test_an_old_name_is_read_as_the_new_one(algorithm, today, before, tmp_path):
    made = recipe(algorithm, *today)
    values = yaml.safe_load(dump(made))
    values["algorithm"].pop("noise", None)
    values["algorithm"]["name"] = algorithm
    values.pop("environment")
    for path, value in before.items():
        section, option = path.split(".")
        values[section][option] = value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert load_resolved(tmp_path / "recipe.yaml") == made


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("policy_gradient.variant=grpo", "policy_gradient.variant=grpo is now policy_gradient.variant=ppo"),
        ("context.template=sdft", "context.template=sdft is now context.template=demonstration"),
        ("context.template=opsd", "context.template=opsd is now context.template=reference"),
        (
            "context.feedback_noise=0.1",
            f"context.feedback_noise is now algorithm.noise, together with algorithm.name={NOISE}",
        ),
        (
            "data.families=[minicode,minicode-texts]",
            f"data.families is now environment.families, together with environment.kind={SEQUENCE}",
        ),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(override, says):
    with pytest.raises(UserError) as error:
        recipe("grpo", override)
    assert says in str(error.value)


def test_an_old_name_in_a_file_is_refused_too(tmp_path):
    (tmp_path / "mine.yaml").write_text("recipe: mine\nmodel: {path: x}\ncontext: {template: opsd}\n")
    with pytest.raises(UserError, match="mine.yaml: context.template=opsd is now context.template=reference"):
        load_recipe(tmp_path / "mine.yaml", "cpu")


def test_no_old_name_is_an_option_of_today():
    from sdpo.config.schema import Recipe

    for moved in TABLE:
        section, option = moved.old.split(".")
        annotation = Recipe.model_fields[section].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        there = any(option in getattr(kind, "model_fields", {}) for kind in kinds)
        assert there == (moved.old == moved.new), moved.old


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["algorithm.mixx=0.5"], "unknown option algorithm.mixx. Did you mean algorithm.mix?"),
        (["algorithm.nam=grpo"], "unknown option algorithm.nam. Did you mean algorithm.name?"),
        (["algorithm.name=srpo", "algorithm.entropybeta=1"], "Did you mean algorithm.entropy_beta?"),
        (["environment.styl=compact"], "unknown option environment.styl. Did you mean environment.style?"),
        (["environment.knd=code"], "unknown option environment.knd. Did you mean environment.kind?"),
        (["environment=minicode"], "environment: Input should be a valid dictionary"),
        (["data=minicode"], "data: Input should be a valid dictionary"),
        (["algorithm=grpo"], "algorithm: Input should be a valid dictionary"),
        (["environment.kind=minicod"], "environment.kind=minicod is unknown. Did you mean minicode?"),
        (["environment.families=[minicode]"], "unknown option environment.families"),
        (["environment.kind=code"], "data.source=minicode is not what environment.kind=code reads"),
        (["data.path=x", "data.window=[2025-01-01,2025-02-01]"], "data.path, data.window has no effect with"),
        (["data.release=v6"], "data.release has no effect with environment.kind=minicode"),
    ],
)
def test_options_of_an_algorithm_or_an_environment_are_its_own(overrides, says):
    with pytest.raises(UserError) as error:
        recipe("sdpo", *overrides)
    assert says in str(error.value)


def test_a_source_of_rows_sets_the_environment_where_none_is_given():
    assert recipe("sdpo").environment.kind == "minicode"
    gpu = load_recipe(find_recipe("livecodebench", "sdpo"), "gpu")
    assert (gpu.data.source, gpu.environment.kind) == ("livecodebench", "code")


@pytest.mark.parametrize(("family", "world"), [("livecodebench", 3), ("tools", 3), ("math", 0)])
def test_a_world_that_was_null_is_that_of_the_seed_where_there_is_one(family, world, tmp_path):
    """math has no world: its runs of before and of today are the same whatever their seed."""
    values = yaml.safe_load(dump(load_recipe(find_recipe(family, "sdpo"), "cpu", ["seed=3"])))
    values["data"]["world_seed"] = None
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_resolved(path).data.world_seed == world
