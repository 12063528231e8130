"""Recipes: files, profiles, overrides, and the mistakes that are refused."""

from __future__ import annotations

import pytest

from sdpo.config.files import dump, find_recipe, load_recipe, load_resolved
from sdpo.errors import UserError


def load(*overrides: str, algorithm: str = "sdpo", profile: str = "cpu"):
    return load_recipe(find_recipe("livecodebench", algorithm), profile, overrides)


@pytest.mark.parametrize("algorithm", ["sdpo", "grpo"])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_resolved_recipe_reads_back_as_itself(algorithm, profile, tmp_path):
    recipe = load(algorithm=algorithm, profile=profile)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


def test_both_algorithms_have_the_same_budget():
    for profile in ("cpu", "gpu"):
        sdpo, grpo = (load(algorithm=a, profile=profile) for a in ("sdpo", "grpo"))
        assert sdpo.samples_per_step * sdpo.run.steps == grpo.samples_per_step * grpo.run.steps
        assert sdpo.evaluation == grpo.evaluation and sdpo.data == grpo.data and sdpo.model == grpo.model


def test_the_published_livecodebench_settings():
    """arXiv 2601.20802, table of hyper-parameters, column LiveCodeBench."""
    sdpo, grpo = load(profile="gpu"), load(algorithm="grpo", profile="gpu")
    assert (sdpo.run.questions, sdpo.rollout.responses, sdpo.run.questions // sdpo.learner.updates_per_batch) == (
        32,
        8,
        1,
    )
    assert (sdpo.distillation.alpha, sdpo.distillation.top_k, sdpo.distillation.tail) == (1.0, 20, True)
    assert (sdpo.teacher.kind, sdpo.teacher.rate, sdpo.teacher.clock) == ("ema", 0.01, "batch")
    assert (sdpo.learner.lr, sdpo.learner.weight_decay, sdpo.learner.clip_grad_norm) == (1e-6, 0.01, 1.0)
    assert (sdpo.context.max_prompt_tokens, sdpo.rollout.max_response_tokens) == (2048, 8192)
    assert (sdpo.context.max_reprompt_tokens, sdpo.model.thinking) == (10240, False)
    assert (sdpo.evaluation.temperature, sdpo.evaluation.top_p, sdpo.evaluation.samples) == (0.6, 0.95, 4)
    assert (grpo.policy_gradient.clip_low, grpo.policy_gradient.clip_high) == (0.2, 0.28)
    assert grpo.run.questions // grpo.learner.updates_per_batch == 8


BIGGER = ("teacher.placement=own", "teacher.kind=frozen", "teacher.model=there")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["learner.lrr=1"], "unknown option learner.lrr. Did you mean learner.lr?"),
        (["distilation.alpha=1"], "Did you mean distillation?"),
        (["learner.alpha=1"], "unknown option learner.alpha. Did you mean distillation.alpha?"),
        (["learner.lr"], "key=value"),
        (["learner.lr=fast"], "learner.lr: Input should be a valid number"),
        (["teacher.kind=live"], "teacher.rate has no effect with teacher.kind=live"),
        (["distillation.tail=true"], "distillation.tail has no effect on the full vocabulary"),
        (["distillation.tail=false"], "distillation.tail has no effect on the full vocabulary"),
        (["distillation.is_clip=3"], "distillation.is_clip has no effect with learner.updates_per_batch=1"),
        (["distillation.level=token"], "set distillation.alpha=1"),
        (
            ["policy_gradient.clip_low=0.1"],
            "policy_gradient has no effect with these settings of sdpo",
        ),
        (["learner.updates_per_batch=3"], "must divide run.questions=16"),
        (["evaluation.ks=[1,8]"], "asks for pass@8 from 4 samples"),
        (["evaluation.temperature=0", "evaluation.ks=[1]"], "evaluation.samples has no effect with greedy decoding"),
        (["data.path=there"], "data.path has no effect with environment.kind=minicode"),
        (["rollout.gpu_memory_utilization=0.5"], "has no effect with profile=cpu"),
        (["context.demonstration=none", "context.feedback=never"], "the teacher needs a context"),
        (["rollout.staleness=1", "distillation.sampler_threshold=null"], "distillation.sampler_threshold corrects"),
        (["rollout.staleness=1", "rollout.colocated=true"], "colocated"),
        (["rollout.mode=continuous"], "rollout.mode=continuous learns from responses that began with older weights"),
        (["rollout.adapter=loaded"], "rollout.adapter has no effect without model.adapter"),
        (["teacher.ranks=2"], "teacher.ranks has no effect unless teacher.placement=own"),
        (
            ["teacher.placement=own", "teacher.kind=live", "teacher.rate=null", "teacher.clock=null"],
            "set teacher.placement=learner",
        ),
        (["teacher.model=there"], "set teacher.placement=own and teacher.kind=frozen"),
        (
            [*BIGGER, "teacher.rate=null", "teacher.clock=null", "probe.every=3"],
            "and teacher.model is another model; set probe.every=0",
        ),
        (
            [*BIGGER, "teacher.rate=null", "teacher.clock=null", "probe.every=0", "guard.action=rollback"],
            "and teacher.model is another model; set guard.action=stop",
        ),
        (
            ["teacher.placement=own", "teacher.clock=update", "learner.updates_per_batch=2"],
            "set teacher.clock=batch, or teacher.placement=learner",
        ),
        (
            ["model.adapter={}", "rollout.adapter=loaded", "rollout.weight_bucket_mb=64"],
            "rollout.weight_bucket_mb has no effect with rollout.adapter=loaded",
        ),
    ],
)
def test_mistakes_are_named(overrides, says):
    with pytest.raises(UserError) as error:
        load(*overrides)
    assert says in str(error.value)


def test_continuous_generation_needs_engines_that_go_on_and_sample():
    continuous = ("rollout.mode=continuous", "rollout.staleness=4")
    shared = ("learner.ranks=4", "rollout.colocated=true", "rollout.gpu_memory_utilization=0.3")
    load(*continuous)
    with pytest.raises(UserError, match="needs engines that sample while the learner works; set rollout.colocated=fal"):
        load(*continuous, *shared, profile="gpu")
    with pytest.raises(UserError, match="has no effect with rollout.source=solution, which samples nothing"):
        load(*continuous, algorithm="sft")


def test_an_engine_that_gives_its_memory_up_keeps_no_base():
    shared = ("learner.ranks=4", "rollout.colocated=true", "rollout.gpu_memory_utilization=0.3", "model.adapter={}")
    load(*shared, profile="gpu")
    with pytest.raises(UserError, match="rollout.adapter=loaded keeps the base model in the engines"):
        load(*shared, "rollout.adapter=loaded", profile="gpu")


def test_a_grpo_recipe_refuses_a_teacher():
    with pytest.raises(UserError, match="teacher has no effect with these settings of grpo"):
        load("teacher.kind=frozen", algorithm="grpo")


@pytest.mark.parametrize(
    ("algorithm", "first", "remedy"),
    [
        (
            "sdpo",
            ["evaluation.temperature=0", "evaluation.ks=[1]"],
            ["evaluation.samples=null", "evaluation.top_p=null"],
        ),
        ("sdpo", ["distillation.top_k=null"], ["distillation.tail=null"]),
        ("sdpo", ["distillation.level=token"], ["distillation.top_k=null", "distillation.tail=null"]),
        (
            "grpo",
            ["learner.updates_per_batch=1"],
            [f"policy_gradient.{key}=null" for key in ("clip_low", "clip_high", "dual_clip")],
        ),
    ],
)
def test_following_the_message_resolves_it(algorithm, first, remedy):
    with pytest.raises(UserError) as error:
        load(*first, algorithm=algorithm, profile="gpu")
    for override in remedy:
        assert override.split("=")[0] in str(error.value)
    load(*first, *remedy, algorithm=algorithm, profile="gpu")


def test_the_mix_brings_the_policy_gradient():
    recipe = load("algorithm.mix=0.9")
    assert recipe.policy_gradient is not None and recipe.distillation is not None


def test_a_number_in_scientific_notation_is_a_number():
    assert load("learner.lr=1e-5").learner.lr == 1e-5


NAMES = ["1e3", "true", "null", "0123", "on", "1_000", "2026-01-01", "nan"]
AS_GIVEN = [*NAMES, "1:30", "~", "[a]", "{a: b}", "a: b"]


@pytest.mark.parametrize("text", [*AS_GIVEN, "# x", "'x'", "a,b", "&a", "*a", "!!int 3", "%x", "@x", "12"])
def test_an_option_of_text_takes_it_as_it_is_given(text):
    recipe = load(f"model.path={text}", f"run.directory={text}")
    assert {recipe.model.path, recipe.run.directory} == {text}


@pytest.mark.parametrize("text", [*NAMES, "a,b", "12"])
def test_a_name_is_taken_as_it_is_given(text):
    recipe = load(f"name={text}", f"tracking.project={text}")
    assert {recipe.name, recipe.tracking.project} == {text}


@pytest.mark.parametrize("text", [t for t in AS_GIVEN if t not in ("null", "~")])
def test_an_option_of_text_or_nothing_takes_it_too_and_null_is_nothing(text):
    assert load("context.demonstration=column", f"context.column={text}").context.column == text
    assert load(f"data.path={text}", "data.source=livecodebench").data.path == text
    for null in ("null", "~", ""):
        assert load(f"data.path={null}").data.path is None


def test_text_within_lists_and_sections_is_taken_as_it_is_given():
    assert load("tracking={project: 0123, wandb: disabled}").tracking.project == "0123"
    with pytest.raises(UserError, match="given: '1e3'"):
        load("environment.kind=studies.sequence:MinicodeSequence", "environment.families=[1e3]")
    with pytest.raises(UserError, match="given: '1e3'"):
        load("rollout.source=1e3")
    assert load("teacher={kind: ema, rate: 1e-2}").teacher.rate == 0.01
    assert load("learner.betas=[9e-1, .95]").learner.betas == (0.9, 0.95)


@pytest.mark.parametrize("value", ["[2025-02-30, 2025-05-01]", "{[a]: b}", "[", "&a [*a]"])
def test_a_value_that_is_no_yaml_is_named(value):
    with pytest.raises(UserError, match="is not valid YAML"):
        load(f"data.window={value}")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_something_else_reads_back(name, tmp_path):
    recipe = load(f"name={name}")
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load_resolved(tmp_path / "recipe.yaml") == recipe


def test_files_extend_files_and_profiles_win_over_the_common_part(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "recipe: mine\nmodel: {path: base}\nrun: {steps: 1, questions: 4}\nprofiles: {cpu: {run: {steps: 2}}}\n"
    )
    (tmp_path / "top.yaml").write_text("extends: base.yaml\nmodel: {path: top}\nprofiles: {gpu: {run: {steps: 3}}}\n")
    path = find_recipe(str(tmp_path / "top.yaml"), None)
    cpu, gpu = load_recipe(path, "cpu"), load_recipe(path, "gpu", ["run.questions=8"])
    assert (cpu.model.path, cpu.run.steps, cpu.run.questions) == ("top", 2, 4)
    assert (gpu.run.steps, gpu.run.questions, gpu.name) == (3, 8, "mine-sdpo-seed0")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: nowhere.yaml\n", "extends nowhere.yaml, which is not there"),
        ("extends: top.yaml\n", "extends itself"),
        ("profiles: {tpu: {}}\n", "unknown profiles"),
        ("a: [\n", "is not valid YAML"),
        ("- 1\n", "must hold a mapping"),
    ],
)
def test_broken_files(text, says, tmp_path):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(find_recipe(str(tmp_path / "top.yaml"), None), "cpu")
    assert says in str(error.value)


def test_unknown_recipes_and_algorithms():
    with pytest.raises(UserError, match="Did you mean livecodebench"):
        find_recipe("livecodebnch", None)
    with pytest.raises(UserError, match="Did you mean grpo"):
        find_recipe("livecodebench", "grp")
    with pytest.raises(UserError, match="no algorithm 'base'"):
        find_recipe("livecodebench", "base")
    with pytest.raises(UserError, match="names its algorithm itself"):
        find_recipe("mine.yaml", "grpo")
    with pytest.raises(UserError, match="no recipe file"):
        find_recipe("nowhere.yaml", None)
