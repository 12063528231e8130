"""`sdpo eval`: pass@k of any policy, with the results and the responses as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from sdpo.config import registry
from sdpo.config.files import find_recipe, load_recipe, load_resolved
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.model_weights import check_weights
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say
from sdpo.tracking import Console
from sdpo.training.adapter_base import whole_model
from sdpo.training.checkpoints import find_policy
from sdpo.training.fitting import fitted
from sdpo.training.parts import Parts, prepared
from sdpo.training.private_folder import private_folder
from sdpo.types import Group, Outcome, Turn


def run(options) -> int:
    with whole_model(find_policy(options.policy)) as policy:
        return _run(options, policy)


def _run(options, policy: Path) -> int:
    recipe = _recipe(options, policy)
    out = Path(options.out or Path(recipe.run.directory) / "eval" / _name(Path(options.policy)))
    with (
        Console(f"evaluation of {options.policy}", 0) as console,
        private_folder(None, console.message),
        prepared(recipe, console) as parts,
    ):
        with console.phase("checking the weights", announce=True):
            check_weights(recipe.model.path)
        return asyncio.run(_evaluate(recipe, parts, console, out))


def _recipe(options, policy: Path) -> Recipe:
    """The recipe of the run that the policy comes from, if it comes from one; else that of --recipe."""
    overrides = [*options.overrides, f"model.path={policy}", "model.adapter=null"]
    for folder in (Path(options.policy).resolve(), *Path(options.policy).resolve().parents[:3]):
        if (folder / "run.json").is_file() and (folder / "recipe.yaml").is_file() and options.recipe is None:
            recipe = load_resolved(folder / "recipe.yaml", overrides)
            choose_profile(options.profile or recipe.profile)
            say(f"Settings of {folder.name} (profile {recipe.profile}, seed {recipe.seed}).")
            return recipe
    profile, reason = choose_profile(options.profile)
    file = find_recipe(options.recipe or "livecodebench", registry.BASELINE)
    gpus = known_gpus(profile)
    recipe = load_recipe(file, profile, overrides, gpus)
    say(f"Settings of recipe {recipe.recipe} (profile {profile}: {reason}; seed {recipe.seed}).")
    return fitted(recipe, file, overrides, gpus)


def _name(policy: Path) -> str:
    """runs/x/checkpoints/last → x-last; anything else by its last part."""
    *_, run, folder, last = "/", "/", *Path(os.path.abspath(policy)).parts  # not resolved: `last` is a link
    return f"{run}-{last}" if folder == "checkpoints" else last


async def _evaluate(recipe: Recipe, parts: Parts, console: Console, out: Path) -> int:
    from sdpo.prompts.context import ContextBuilder
    from sdpo.rollout.generation import Generation
    from sdpo.training.evaluate import evaluate
    from sdpo.training.launch import cluster
    from sdpo.training.placement import plan_placement
    from sdpo.training.workers import announced, make_pool

    dataset = parts.dataset
    async with cluster(console) as resources:
        placement = plan_placement(recipe, resources["CPU"], resources.get("GPU", 0), learner=False)
        pool = make_pool(recipe, placement)
        await announced(console, "starting vLLM engines", pool.start(console.message))
        contexts = ContextBuilder(parts.tokenizer, recipe.context, recipe.model.thinking)
        generation = Generation(recipe, parts.environment, contexts, parts.tokenizer, pool)
        total = len(dataset.evaluation) * recipe.evaluation_samples
        with console.phase("evaluating", total=total, announce=True) as progress:
            evaluation = await evaluate(generation, dataset.evaluation, dataset, on_outcome=progress.advance)
        await pool.shutdown()
    out.mkdir(parents=True, exist_ok=True)
    evaluation.result.save(out / "results.json")
    write_responses(out / "responses.jsonl", evaluation.groups)
    also = parts.environment.export(evaluation.groups, out)
    console.evaluation({f"eval/{dataset.name}/{key}": value for key, value in evaluation.result.metrics().items()})
    if evaluation.result.warning:
        console.message(evaluation.result.warning)
    console.message(
        f"Wrote {out}/results.json and {out}/responses.jsonl{f', and {also}' if also else ''} ({dataset.name}"
        + (f"; tests: {dataset.test_split}" if dataset.test_split else "")
        + f"; problems: {dataset.problem_split or 'as they come'}, thinking: {recipe.evaluation.thinking})."
    )
    return 0


def write_responses(path: Path, groups: Sequence[Group]) -> None:
    """One line for each rollout: every turn's answer and what it was worth."""
    lines = [
        {"task": group.task.id, "turns": [_turn(turn) for turn in rollout.turns]}
        for group in groups
        for rollout in group.rollouts
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _turn(turn: Turn) -> dict[str, object]:
    outcome = turn.outcome or Outcome(None)
    return {
        "response": turn.text.encode(errors="backslashreplace").decode(),
        "reward": outcome.reward,
        "solved": outcome.solved,
        "label": outcome.label,
        "feedback": outcome.feedback and outcome.feedback.encode(errors="backslashreplace").decode(),
    }
