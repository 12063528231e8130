"""`sdpo plan`: sums of memory and time by hand, what fits, and what makes it fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sdpo.cli import main
from sdpo.cli.plan_memory import placed_on
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from sdpo.config.registry import ALGORITHMS
from sdpo.errors import UserError
from sdpo.learner.memory import total
from sdpo.learner.shapes import shapes_of
from sdpo.rollout.memory import GIB, cache_bytes_per_token
from sdpo.training.budget import Speeds, budget
from sdpo.training.memory_plan import Planner
from sdpo.training.remedy import _changes, _products, changed, smallest_change, tried, words
from tests.core.test_plan import QWEN3_8B
from tests.learner.families import family

PARAMETERS = 8_190_735_360
HEAD = 151_936 * 4096


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "Qwen3-8B"
    shutil.copytree(PROJECT / "policies" / "minicode", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "config.json").write_text(json.dumps(QWEN3_8B))
    return folder


def recipe_of(model: Path, *overrides: str, algorithm: str = "sdpo"):
    return load_recipe(find_recipe("livecodebench", algorithm), "gpu", (f"model.path={model}", *overrides))


@pytest.fixture(scope="module")
def planner(model) -> Planner:
    return Planner(recipe_of(model), 80 * GIB)


@pytest.fixture(scope="module")
def one(planner):
    """The recipe on one GPU."""
    return placed(planner, 1)


def placed(planner: Planner, gpus: int):
    return changed(planner.recipe, placed_on(planner, planner.recipe, gpus))


def test_the_recipe_on_eight_gpus(planner):
    """Bytes of a parameter on one of four ranks: weights 2, master 4, moments 8, gradients 4, average 2 + 4."""
    assert placed_on(planner, planner.recipe, 8) == {}
    plan = planner.plan()
    assert plan.fits
    assert total(plan.learner.resident) == PARAMETERS // 4 * 24 + 200_000_000 * 4
    learner, engine = plan.devices
    assert (learner.count, engine.count) == (4, 4)
    assert plan.engine.weights == PARAMETERS * 2
    assert plan.engine.share == int(0.85 * 80 * GIB)
    assert plan.engine.token == 36 * 2 * 8 * 128 * 2
    assert plan.sequences == plan.engine.cache // (147_456 * 10_240)


@pytest.mark.parametrize(("overrides", "bytes_each"), [
    (("learner.zero_stage=2", "learner.ranks=1"), 2 + 4 + 8 + 6),
    (("learner.zero_stage=2", "learner.ranks=4"), 2 + (4 + 8) / 4 + 6),
    (("learner.zero_stage=3", "learner.ranks=4", "teacher.kind=live"), (2 + 4 + 8 + 4) / 4),
    (("learner.zero_stage=2", "learner.ranks=1", "teacher.kind=frozen"), 2 + 4 + 8 + 2),
    (("learner.zero_stage=0", "learner.ranks=2", "model.dtype=float32", "model.attention=sdpa"), 4 + 8 + 4),
    (("learner.zero_stage=1", "learner.ranks=2", "model.dtype=float32", "model.attention=sdpa"), 4 + (4 + 8) / 2 + 4),
])  # fmt: skip
def test_what_a_rank_holds_all_the_time(planner, model, overrides, bytes_each):
    kept = ("teacher.rate=null", "teacher.clock=null") if "teacher.kind" in " ".join(overrides) else ()
    plan = planner.plan(recipe_of(model, *overrides, *kept))
    bucket = 800_000_000 if "learner.zero_stage=3" in overrides else 0
    assert total(plan.learner.resident) == pytest.approx(PARAMETERS * bytes_each + bucket, rel=1e-6)


@pytest.mark.parametrize(("kind", "kept"), [
    (("teacher.kind=ema",), 4),
    (("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "probe.every=0"), 0),
    (("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "probe.every=5"), 2),
])  # fmt: skip
def test_a_teacher_of_its_own_has_gpus_of_its_own(planner, model, kind, kept):
    """The learner keeps what it sends, or what engines are given in a probe, and the head."""
    shape = ("learner.zero_stage=2", "learner.ranks=1", "teacher.placement=own", "teacher.ranks=2")
    plan = planner.plan(recipe_of(model, *shape, *kind))
    assert total(plan.learner.resident) == pytest.approx(PARAMETERS * (2 + 4 + 8 + kept) + HEAD * 2, rel=1e-6)
    assert "teacher" not in plan.learner.moments
    *_, own = plan.devices
    assert (own.name, own.count, list(own.phases)) == ("teacher", 2, ["score"])
    assert own.phases["score"]["weights"] == PARAMETERS * 2
    assert plan.host["teacher's answers"] == 256 * 8192 * 4096 * 2
    inside = planner.plan(recipe_of(model, *shape[:2], *kind))
    speeds = Speeds(tflops=100.0, response=1000)
    here, there = (budget(each, speeds, 8, evaluated=40) for each in (inside, plan))
    assert here.flops == pytest.approx(there.flops) and here.score == 0
    assert there.update + 2 * there.score == pytest.approx(here.update)
    assert there.step == pytest.approx(max(there.generate, there.score) + there.update)


def test_layers_that_are_compared_are_counted(planner, model):
    """Two projections of 4096 × 4096 train in bf16, and of each token three hidden states travel instead of one."""
    shape = ("learner.zero_stage=2", "learner.ranks=1", "teacher.placement=own", "teacher.kind=frozen")
    shape += ("teacher.rate=null", "teacher.clock=null", "probe.every=0")
    layers = "distillation.layers={pairs: [[12, 12], [24, 24]], coefficient: 0.01}"
    off, on = (planner.plan(recipe_of(model, *shape, *more)) for more in ((), (layers,)))
    assert total(on.learner.resident) - total(off.learner.resident) == 2 * 4096**2 * (2 + 4 + 8)
    assert on.learner.moments["step"]["gradients"] - off.learner.moments["step"]["gradients"] == 2 * 4096**2 * 4
    assert on.host["teacher's answers"] == 3 * off.host["teacher's answers"]
    assert total(on.teacher) > total(off.teacher) and total(on.learner.update) > total(off.learner.update)
    assert on.engine.weights == off.engine.weights and on.learner.publishing == off.learner.publishing


def test_a_teacher_of_its_own_goes_to_the_learner_where_there_is_no_gpu_for_it(planner, model):
    recipe = recipe_of(model, "teacher.placement=own", "teacher.ranks=2")
    assert placed_on(planner, recipe, 10) == {}
    for gpus in (1, 4):
        fewer = changed(recipe, placed_on(planner, recipe, gpus))
        assert fewer.teacher_ranks == 0 and fewer.learner.ranks <= gpus


def test_an_adapter_is_all_that_trains(planner, model):
    """Rank 16 on every linear layer: (in + out) · 16 elements each."""
    wide = 4096 + 4096, 4096 + 1024, 4096 + 1024, 4096 + 4096, *[4096 + 12_288] * 3
    adapter = 36 * 16 * sum(wide)
    plan = Planner(
        recipe_of(model, "learner.ranks=1", "learner.zero_stage=2", "model.adapter.rank=16"), 80 * GIB
    ).plan()
    assert plan.learner.resident == {
        "weights": (PARAMETERS + adapter) * 2,
        "optimiser": adapter * 8,
        "master weights": adapter * 4,
        "moving average": adapter * 4,
    }
    assert plan.engine.weights == PARAMETERS * 2  # merged
    loaded = recipe_of(model, "learner.ranks=1", "model.adapter.rank=20", "rollout.adapter=loaded")
    found = Planner(loaded, 80 * GIB).plan()
    assert found.engine.weights == PARAMETERS * 2 + 2 * adapter // 16 * 32 * 2  # room for two, of the next rank up
    assert found.learner.publishing == {"gathered adapter": adapter // 16 * 20 * 2}


def test_on_one_gpu_nothing_is_sampled_while_the_learner_works(model):
    ahead = placed(Planner(recipe_of(model, "rollout.mode=continuous", "rollout.staleness=8"), 80 * GIB), 1)
    assert (ahead.rollout.colocated, ahead.rollout.mode, ahead.rollout.staleness) == (True, "synchronous", 0)


def test_one_gpu_is_shared_and_needs_an_adapter(planner, model, one):
    assert (one.learner.ranks, one.rollout.engines, one.rollout.colocated) == (1, 1, True)
    assert not planner.plan(one).fits
    change, plan = smallest_change(planner, one)
    assert "model.adapter" in change and plan.fits
    again = load_recipe(
        find_recipe("livecodebench", "sdpo"), "gpu",
        (f"model.path={model}", *words(placed_on(planner, planner.recipe, 1)).split(), *words(change).split()),
    )  # fmt: skip
    assert again == plan.recipe


def test_no_smaller_change_would_do(planner, one):
    change, _ = smallest_change(planner, one)
    singles = [each for kind in _changes(one) for each in _products((kind,))]
    fitting = [each for each in singles if tried(planner, one, each)]
    assert fitting == [] or (len(change) == 1 and change.keys() == fitting[0].keys())


def test_the_largest_share_of_a_shared_gpu(planner, one):
    shared = changed(one, {"model.adapter": {"rank": 16}})
    largest = planner.plan(shared).largest_utilization
    for share, fits in ((largest, True), (largest + 0.01, False)):
        plan = planner.plan(changed(shared, {"rollout.gpu_memory_utilization": share}))
        assert plan.devices[0].fits("checkpoint") is fits


def test_a_small_gpu_is_refused_and_nothing_is_promised(model, one):
    planner = Planner(recipe_of(model), 8 * GIB)
    assert not planner.plan(one).fits and smallest_change(planner, one) is None


def test_a_change_that_contradicts_the_recipe_is_not_tried(planner):
    assert tried(planner, planner.recipe, {"learner.zero_stage": 1}) is None  # bfloat16 needs 2


def test_keys_and_values_of_layers_that_attend():
    assert cache_bytes_per_token(family("qwen3"), 2) == 4 * 2 * 2 * 8 * 2
    assert cache_bytes_per_token(family("qwen3"), 2, parallel=2) == 4 * 2 * 1 * 8 * 2
    assert cache_bytes_per_token(family("deepseek_v3"), 2) == 4 * (8 + 8) * 2
    hybrid = family("qwen3_next")
    attending = sum(kind == "full_attention" for kind in hybrid.layer_types)
    assert 0 < attending < hybrid.num_hidden_layers
    assert cache_bytes_per_token(hybrid, 2) == attending * 2 * hybrid.num_key_value_heads * hybrid.head_dim * 2
    assert cache_bytes_per_token(family("jamba"), 2) == 2 * 2 * 2 * 8 * 2  # every other layer
    assert cache_bytes_per_token(family("gemma3_text"), 2) == 7 * 2 * 2 * 8 * 2  # windows, too
    assert cache_bytes_per_token(family("mamba"), 2) == 0


def test_time_and_cost(planner, model):
    plan = planner.plan(recipe_of(model, algorithm="grpo"))
    found = budget(plan, Speeds(tflops=100.0, bandwidth=1.0, response=1000), 8, evaluated=40)
    assert found.sampled == 256 * 1000
    assert found.learned == 32 * 2048 + 256 * 1000
    body = PARAMETERS - 2 * HEAD  # matrices and a few norms
    pairs = 32 * (2048**2 / 2 + 8 * (2048 * 1000 + 1000**2 / 2))
    layers = 2 * body * found.learned + 36 * 4 * 4096 * pairs
    head = 2 * HEAD * found.sampled
    assert found.flops == pytest.approx(5 * layers + 4 * head, rel=1e-3)  # 3, computed anew, and the old log-probs
    assert found.update == pytest.approx(found.flops / 4e14)
    reading = PARAMETERS * 2 + 64 * (2048 + 500) * 147_456
    assert found.generate == pytest.approx(1000 * reading / 1e12)
    evaluating = 9 * 1000 * (PARAMETERS * 2 + 10 * (2048 + 500) * 147_456) / 1e12
    assert found.hours == pytest.approx((80 * found.step + evaluating) * 8 / 3600)


@pytest.mark.parametrize(("kind", "packs"), [("stablelm", False), ("falcon", False), ("gemma2", True)])
def test_other_models_are_counted_as_they_are_computed(model, tmp_path, kind, packs):
    """One sequence per pass, or packed by flex_attention, whatever the recipe's form of attention is."""
    shutil.copytree(model, tmp_path / "model")
    config = family(kind, max_position_embeddings=40960, vocab_size=768)
    (tmp_path / "model" / "config.json").write_text(config.to_json_string())
    plan = Planner(recipe_of(tmp_path / "model", "learner.ranks=1", "learner.zero_stage=2", algorithm="grpo"), 80 * GIB)
    found = plan.plan()
    assert found.fits and found.shapes.packs is packs
    sampled = 256 * 1000
    learned = budget(found, Speeds(response=1000), 8, evaluated=40).learned
    assert learned == sampled + (32 if packs else 256) * 2048  # prompts, shared or not


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_counted(planner, model, algorithm):
    losses = planner.plan(recipe_of(model, algorithm=algorithm)).learner.moments["losses"]
    assert losses["logits, the head's gradient"] > HEAD * 4  # in fp32, and chunks of logits


def test_an_option_without_effect_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "livecodebench", "--profile", "cpu", "--price", "2"]) == 2
    assert "--price has no effect with profile cpu" in capsys.readouterr().err
    assert main(["plan", "livecodebench", "--gpus", "0"]) == 2
    assert "--gpus 0: give a number above 0" in capsys.readouterr().err


def test_a_model_that_cannot_be_counted_says_so():
    config = family("qwen3")
    config.num_hidden_layers = 0
    with pytest.raises(UserError, match="The layers of qwen3 are not found"):
        shapes_of(config, torch.float32)
