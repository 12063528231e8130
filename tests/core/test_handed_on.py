"""Options that go to vLLM and DeepSpeed as they are."""

from __future__ import annotations

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError
from sdpo.learner import deepspeed_config
from sdpo.rollout import startup
from sdpo.rollout.servable import argument_names
from sdpo.training.placement import engine_options

LOADED = ("model.adapter={}", "rollout.adapter=loaded")


def recipe(*overrides: str, profile: str = "cpu"):
    return load_recipe(find_recipe("livecodebench", "sdpo"), profile, list(overrides))


def engine_args(*overrides: str, profile: str = "cpu") -> dict:
    return startup.engine_args(engine_options(recipe(*overrides, profile=profile)))


def test_an_argument_reaches_the_engine_beside_the_recipes_own():
    given = engine_args("rollout.engine_args.block_size=128")
    assert given == engine_args() | {"block_size": 128}


@pytest.mark.parametrize(("profile", "more"), [("cpu", ()), ("gpu", ()), ("cpu", LOADED)])
def test_whatever_sdpo_sets_itself_is_refused(profile, more):
    own = engine_args(*more, profile=profile)
    assert own.keys() <= argument_names()  # the names that are read from vLLM's source
    for name in own.keys() | startup.OWNERS.keys():
        with pytest.raises(UserError, match=f"rollout.engine_args.{name} (is decided by|cannot be changed)"):
            engine_args(*more, f"rollout.engine_args.{name}=1", profile=profile)


def test_an_engine_has_room_for_the_adapters_under_way_and_layers_for_them():
    own = engine_args(*LOADED)
    assert (own["enable_lora"], own["max_loras"], own["max_lora_rank"]) == (True, 2, 16)
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert own["lora_target_modules"] == linear
    stale = ("rollout.staleness=3", "model.adapter.targets=[self_attn.q_proj,v_proj]", "model.adapter.rank=17")
    other = engine_args(*LOADED, *stale)
    assert (other["max_loras"], other["max_lora_rank"], other["lora_target_modules"]) == (4, 32, ["q_proj", "v_proj"])
    beside = startup.engine_args(engine_options(recipe(*LOADED, profile="cpu"), policies=8))
    assert beside["max_loras"] == 9  # of each the one that is loaded, and one that takes another's place
    with pytest.raises(UserError, match="rank 512 at most: lower model.adapter.rank .513.*merged"):
        engine_args(*LOADED, "model.adapter.rank=513")
    assert "enable_lora" not in engine_args("model.adapter={}")


def test_the_options_of_the_recipe_that_are_named_are_there():
    known = recipe(profile="gpu").model_dump()
    for text in (startup.OWNERS | deepspeed_config.OWNERS).values():
        for option in text.replace(" and ", ", ").split(", "):
            node = known
            for part in option.split("."):
                node = node[part]


def test_an_argument_that_vllm_has_not_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean max_num_batched_tokens"):
        engine_args("rollout.engine_args.max_num_batch_tokens=8", profile="gpu")


def test_deepspeeds_sections_are_joined():
    found = deepspeed_config.training_config(recipe("learner.deepspeed.zero_optimization.overlap_comm=true"))
    plain = deepspeed_config.training_config(recipe())
    assert found == plain | {"zero_optimization": plain["zero_optimization"] | {"overlap_comm": True}}


@pytest.mark.parametrize(
    "override, said",
    [
        ("learner.deepspeed.zero_optimization.stage=3", "is decided by learner.zero_stage"),
        ("learner.deepspeed.optimizer.type=Adam", "is decided by learner.lr"),
        ("learner.deepspeed.zero_optimization.contiguous_gradients=false", "needs the value True"),
        ("learner.deepspeed.wall_clock_brakedown=true", "Did you mean wall_clock_breakdown"),
        ("learner.deepspeed.zero_optimization.overlap_com=true", "overlap_com"),
        ("learner.deepspeed.zero_optimization.overlap_comm=often", "overlap_comm"),
    ],
)
def test_what_deepspeed_would_ignore_or_refuse_is_refused_before_a_start(override, said):
    with pytest.raises(UserError, match=said):
        deepspeed_config.check_deepspeed(recipe(override))


def test_what_deepspeed_takes_is_taken():
    deepspeed_config.check_deepspeed(recipe("learner.deepspeed.wall_clock_breakdown=false"))
