"""The gpu recipes against the values that their sources state, and a source beside every value."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path

import pytest

from sdpo.config.files import RECIPES, find_recipe, load_recipe
from sdpo.config.paths import locate

_SHARED = {  # arXiv 2601.20802, table of hyper-parameters, column LiveCodeBench
    "model.path": "Qwen/Qwen3-8B",
    "model.thinking": False,
    "context.max_prompt_tokens": 2048,
    "rollout.temperature": 1.0,
    "run.questions": 32,
    "learner.weight_decay": 0.01,
    "learner.clip_grad_norm": 1.0,
    "learner.schedule": "constant",
    "evaluation.temperature": 0.6,
    "evaluation.top_p": 0.95,
    "evaluation.samples": 4,
    "sandbox.cpu_time_s": 6.0,  # the released harness
}
_LONG = {"rollout.responses": 8, "rollout.max_response_tokens": 8192, "run.steps": 80}
_GRADIENT = {  # the same paper's GRPO
    "policy_gradient.variant": "ppo",
    "policy_gradient.normalize_by_std": False,
    "policy_gradient.sampler_threshold": 2.0,
    "policy_gradient.entropy_bonus": 0.0,
    "reference": None,
}
PUBLISHED = {
    "sdpo": _SHARED | _LONG | {
        "distillation.alpha": 1.0, "distillation.top_k": 20, "distillation.tail": True, "distillation.is_clip": 2.0,
        "distillation.sampler_threshold": 2.0, "distillation.advantage_clip": None, "distillation.support": "student",
        "teacher.kind": "ema", "teacher.rate": 0.01, "teacher.clock": "batch", "learner.lr": 1e-6,
        "learner.warmup_steps": 0, "learner.updates_per_batch": 32, "context.max_reprompt_tokens": 10240,
        "context.feedback": "fallback", "context.demonstration": "random", "context.template": "published",
        "context.remove_thinking": True, "data.window": None, "distillation.aggregation": "token-mean",
    },
    "grpo": _SHARED | _LONG | _GRADIENT | {
        "policy_gradient.clip_low": 0.2, "policy_gradient.clip_high": 0.28, "policy_gradient.dual_clip": 3.0,
        "learner.lr": 1e-6, "learner.warmup_steps": 0, "learner.updates_per_batch": 4,
        "policy_gradient.aggregation": "token-mean",
    },
    "srpo": _SHARED | _LONG | _GRADIENT | {  # arXiv 2604.02288, table 3
        "distillation.alpha": 0.5, "distillation.top_k": 100, "distillation.tail": True, "teacher.kind": "ema",
        "teacher.rate": 0.05, "learner.lr": 5e-6, "learner.warmup_steps": 10, "learner.updates_per_batch": 1,
        "algorithm.entropy_beta": 1.0, "distillation.aggregation": "token-mean",
        "policy_gradient.aggregation": "token-mean",
    },
    "opsd": _SHARED | {  # arXiv 2601.18734, version 3
        "distillation.alpha": 0.0, "distillation.top_k": None, "distillation.entry_clip": 0.05,
        "distillation.aggregation": "seq-mean-token-mean", "teacher.kind": "frozen", "context.teacher_thinking": True,
        "context.demonstration": "solution", "context.feedback": "never", "rollout.responses": 1,
        "rollout.max_response_tokens": 1024, "run.steps": 100, "learner.lr": 5e-6, "learner.updates_per_batch": 1,
    },
    "sdft": _SHARED | {  # arXiv 2601.19897
        "distillation.alpha": 0.0, "distillation.top_k": None, "distillation.skip_tokens": 3, "teacher.kind": "ema",
        "teacher.rate": 0.01, "learner.updates_per_batch": 1, "rollout.responses": 1,
        "context.template": "demonstration", "context.demonstration": "solution", "context.feedback": "never",
    },
    "sft": _SHARED | {"policy_gradient.variant": "reinforce", "rollout.responses": 1},
    "rlsd": _SHARED | _GRADIENT | {  # arXiv 2604.03128
        "algorithm.strength": 0.5, "algorithm.strength_steps": 50, "algorithm.ratio_clip": 0.2, "run.steps": 200,
        "context.demonstration": "solution", "context.feedback": "never",
    },
    "sdpg": _SHARED | {  # arXiv 2606.04036
        "policy_gradient.normalize_by_std": True, "policy_gradient.clip_low": 0.2, "policy_gradient.clip_high": 0.28,
        "distillation.alpha": 1.0, "distillation.top_k": None, "distillation.coefficient": 0.001,
        "teacher.kind": "live", "reference.coefficient": 0.001, "reference.kind": "k2", "learner.lr": 1e-6,
        "run.questions": 128, "rollout.responses": 8, "learner.updates_per_batch": 8,
    },
    "sdar": _SHARED | _LONG | {  # arXiv 2605.15155
        "algorithm.gate_beta": 5.0, "distillation.coefficient": 0.1, "teacher.kind": "live",
        "reference.coefficient": 0.01,
    },
    "ssd": {  # arXiv 2604.01193
        "rollout.responses": 1, "rollout.temperature": 1.5, "rollout.top_k": 20, "rollout.top_p": 0.8,
        "algorithm.min_lines": 2, "learner.lr": 5e-6, "evaluation.temperature": 0.9,
    },
    "sd-zero": _SHARED | {  # arXiv 2604.12002, phase 2
        "distillation.alpha": 1.0, "distillation.top_k": 64, "teacher.kind": "frozen", "rollout.responses": 1,
        "learner.lr": 5e-6,
    },
    "drift": _SHARED | _LONG | _GRADIENT | {  # arXiv 2606.30345
        "algorithm.decay": 0.85, "algorithm.hard": 0.3, "algorithm.easy": 0.7, "algorithm.successes": 4,
        "distillation.alpha": 0.5, "context.demonstration": "random",
    },
    "demopsd": _SHARED | _LONG | {  # arXiv 2607.02502
        "distillation.blend.largest": 0.15, "distillation.alpha": 1.0, "distillation.top_k": 100,
        "teacher.kind": "ema", "teacher.rate": 0.05, "learner.lr": 1e-6, "run.questions": 64,
        "context.feedback": "never", "rollout.responses": 8,
    },
}  # fmt: skip


_WITHOUT_FEEDBACK = {  # the same table, the column of tasks without environment feedback
    "model.path": "Qwen/Qwen3-8B", "model.thinking": False, "context.max_prompt_tokens": 2048,
    "rollout.temperature": 1.0, "rollout.responses": 8, "rollout.max_response_tokens": 8192, "run.questions": 32,
    "learner.weight_decay": 0.01, "learner.clip_grad_norm": 1.0, "evaluation.temperature": 0.6,
    "evaluation.top_p": 0.95, "evaluation.samples": 16,
}  # fmt: skip
WITHOUT_FEEDBACK = {
    "sdpo": _WITHOUT_FEEDBACK | {
        "distillation.alpha": 0.5, "distillation.top_k": 100, "distillation.tail": True, "teacher.kind": "ema",
        "teacher.rate": 0.05, "learner.lr": 1e-5, "learner.warmup_steps": 10, "learner.updates_per_batch": 1,
        "context.max_reprompt_tokens": 10240, "context.feedback": "never", "context.demonstration": "random",
    },
    "grpo": _WITHOUT_FEEDBACK | _GRADIENT | {
        "policy_gradient.clip_low": 0.2, "policy_gradient.clip_high": 0.28, "policy_gradient.dual_clip": 3.0,
        "learner.lr": 1e-6, "learner.warmup_steps": 0, "learner.updates_per_batch": 4,
    },
}  # fmt: skip
EDUCATIONAL = {  # the RLHF book's code, configs/sdpo.yaml
    "model.path": "Qwen/Qwen3-1.7B", "model.thinking": True, "environment.family": "spell_backward",
    "environment.prompt": "DeepSeekZero", "rollout.temperature": 0.6, "rollout.top_p": 0.95, "rollout.top_k": 20,
    "rollout.max_response_tokens": 512, "rollout.responses": 8, "run.questions": 4, "learner.lr": 5e-6,
    "learner.updates_per_batch": 4, "learner.clip_grad_norm": 1.0, "distillation.is_clip": 2.0, "teacher.kind": "live",
    "distillation.level": "token", "context.feedback": "never", "context.demonstration": "random", "seed": 42,
}  # fmt: skip
FAMILIES = ("math", "choice", "tools", "gym")


def values(recipe, paths):
    return {path: reduce(getattr, path.split("."), recipe) for path in paths}


@pytest.mark.parametrize("algorithm", WITHOUT_FEEDBACK)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_recipes_of_other_tasks_have_the_papers_values(family, algorithm):
    recipe, wanted = load_recipe(find_recipe(family, algorithm), "gpu"), WITHOUT_FEEDBACK[algorithm]
    assert values(recipe, wanted) == wanted
    assert recipe.environment.kind == recipe.recipe == family


def test_the_comparison_with_the_educational_code_has_its_values():
    recipe = load_recipe(RECIPES / "gym" / "rlhf-book.yaml", "gpu")
    assert values(recipe, EDUCATIONAL) == EDUCATIONAL
    assert recipe.environment.options == {"min_word_len": 3, "max_word_len": 10}


@pytest.mark.parametrize("family", FAMILIES)
def test_their_cpu_profiles_need_nothing_that_is_not_here(family):
    policy, source = ("minitools", "minitools") if family == "tools" else ("minicode", f"sdpo.envs.samples:{family}")
    for algorithm in WITHOUT_FEEDBACK:
        recipe = load_recipe(find_recipe(family, algorithm), "cpu")
        assert recipe.model.path == f"policies/{policy}" and Path(locate(recipe.model.path), "config.json").is_file()
        assert recipe.data.source in (None, source) and recipe.data.path is None


def test_the_tools_recipe_trains_both_methods_on_as_many_samples_of_minitools():
    sdpo, grpo = (load_recipe(find_recipe("tools", algorithm), "cpu") for algorithm in WITHOUT_FEEDBACK)
    assert sdpo.environment == grpo.environment and sdpo.environment.kind == "minitools"
    assert (sdpo.data, sdpo.evaluation, sdpo.model) == (grpo.data, grpo.evaluation, grpo.model)
    assert sdpo.samples_per_step == grpo.samples_per_step == 64 and sdpo.run.steps == grpo.run.steps


def gpu(algorithm: str, *overrides: str):
    return load_recipe(find_recipe("livecodebench", algorithm), "gpu", overrides)


@pytest.mark.parametrize("algorithm", PUBLISHED)
def test_the_gpu_recipes_have_the_published_values(algorithm):
    recipe, wanted = gpu(algorithm), dict(PUBLISHED[algorithm])
    if algorithm == "sdpo":
        assert [d.isoformat() for d in recipe.data.window] == ["2025-02-01", "2025-05-01"]
        del wanted["data.window"]
    assert {path: reduce(getattr, path.split("."), recipe) for path in wanted} == wanted


def test_the_rates_of_sdft_and_its_baseline_are_inside_the_sweep():
    rates = {gpu("sdft").learner.lr, gpu("sft").learner.lr}
    assert len(rates) == 1 and 5e-6 <= rates.pop() <= 5e-5


@pytest.mark.parametrize("algorithm, stream", [("sdpo", "distillation"), ("grpo", "policy_gradient")])
def test_the_mean_per_response_is_offered(algorithm, stream):
    recipe = gpu(algorithm, f"{stream}.aggregation=seq-mean-token-mean")
    assert getattr(recipe, stream).aggregation == "seq-mean-token-mean"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_value_of_a_gpu_profile_names_its_source(path):
    lines = path.read_text().splitlines()
    begin = lines.index("  gpu:")
    end = next((i for i, line in enumerate(lines) if line.startswith("  cpu:")), None)
    section = lines[begin + 1 : end]
    values = [line for line in section if line.strip() and not re.split("[#&]", line)[0].rstrip().endswith(":")]
    assert len(values) > 2
    assert not [line for line in values if " # " not in line]
