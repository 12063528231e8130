"""`sdpo eval`: pass@k of any policy, with the results as JSON and the generations for LiveCodeBench's own evaluator."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdpo.config.files import find_recipe, load_recipe, load_resolved
from sdpo.config.hardware import choose_profile
from sdpo.config.schema import Recipe
from sdpo.envs.code.judging import open_sandbox
from sdpo.tracking import Console
from sdpo.training.checkpoints import find_policy


def run(options) -> int:
    policy = find_policy(options.policy)
    recipe = _recipe(options, policy)
    out = Path(options.out or Path(recipe.run.directory) / "eval" / _name(Path(options.policy)))
    with open_sandbox(recipe) as sandbox, Console(f"evaluation of {options.policy}", 0) as console:
        from sdpo.training.launch import prepare

        tokenizer, dataset = prepare(recipe, console)
        return asyncio.run(_evaluate(recipe, sandbox, console, tokenizer, dataset, out))


def _recipe(options, policy: Path) -> Recipe:
    """The recipe of the run that the policy comes from, if it comes from one; else that of --recipe."""
    overrides = [*options.overrides, f"model.path={policy}"]
    for folder in (Path(options.policy).resolve(), *Path(options.policy).resolve().parents[:3]):
        if (folder / "run.json").is_file() and (folder / "recipe.yaml").is_file() and options.recipe is None:
            recipe = load_resolved(folder / "recipe.yaml", overrides)
            choose_profile(options.profile or recipe.profile)
            print(f"Settings of {folder.name} (profile {recipe.profile}, seed {recipe.seed}).", flush=True)
            return recipe
    profile, reason = choose_profile(options.profile)
    recipe = load_recipe(find_recipe(options.recipe or "livecodebench", "grpo"), profile, overrides)
    print(f"Settings of recipe {recipe.recipe} (profile {profile}: {reason}; seed {recipe.seed}).", flush=True)
    return recipe


def _name(policy: Path) -> str:
    """runs/x/checkpoints/last → x-last; anything else by its last part."""
    *_, run, folder, last = policy.absolute().parts
    return f"{run}-{last}" if folder == "checkpoints" else last


async def _evaluate(recipe: Recipe, sandbox, console: Console, tokenizer, dataset, out: Path) -> int:
    from sdpo.evaluation import evaluate, export_generations
    from sdpo.prompts.context import ContextBuilder
    from sdpo.rollout.generation import Generation
    from sdpo.training.launch import announced, cluster, make_pool
    from sdpo.training.placement import plan_placement

    async with cluster(console) as resources:
        placement = plan_placement(recipe, resources["CPU"], resources.get("GPU", 0), learner=False)
        pool = make_pool(recipe, placement)
        await announced(console, "starting vLLM engines", pool.start(console.message))
        contexts = ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)
        generation = Generation(recipe, contexts, tokenizer, pool, sandbox)
        total = len(dataset.evaluation) * recipe.evaluation_samples
        with console.phase("evaluating", total=total, announce=True) as progress:
            evaluation = await evaluate(
                dataset.evaluation,
                generation.evaluation_responses,
                generation.evaluation_verdict,
                n=recipe.evaluation_samples,
                ks=recipe.evaluation.ks,
                sampling=recipe.evaluation.model_dump(include={"temperature", "top_p"}),
                dataset=dataset.name,
                test_split=dataset.test_split,
                problem_split=dataset.problem_split,
                progress=lambda done, total, passed: progress.update(done),
            )
        await pool.shutdown()
    out.mkdir(parents=True, exist_ok=True)
    evaluation.result.save(out / "results.json")
    export_generations(out / "generations.json", evaluation.answers)
    console.evaluation({f"eval/{dataset.name}/{key}": value for key, value in evaluation.result.metrics().items()})
    console.message(
        f"Wrote {out}/results.json, and {out}/generations.json for LiveCodeBench's custom evaluator "
        f"({dataset.name}; tests: {dataset.test_split}, problems: {dataset.problem_split})."
    )
    return 0
