"""`sdpo plan` and `sdpo train --dry-run`: everything that can be known about a run before anything is started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from sdpo.algorithms import build_algorithm
from sdpo.cli.plan_memory import device_tables, memory_lines, placed_on
from sdpo.config.discovery import refuse_recipe
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.hardware import choose_profile, known_gpus
from sdpo.config.model_files import longest_context, longest_sequence
from sdpo.config.safe_console import SafeConsole
from sdpo.config.schema import Recipe, changed
from sdpo.envs import Dataset, build_environment
from sdpo.errors import UserError
from sdpo.rollout.memory import GIB
from sdpo.tracking.metric_names import dataset_title
from sdpo.tracking.run_folder import check_no_link
from sdpo.training.budget import Speeds, budget
from sdpo.training.fitting import fitted, parameter_count
from sdpo.training.memory_plan import MemoryPlan, Planner
from sdpo.training.parts import check_numbers, load_checked
from sdpo.training.placement import gpus_needed, plan_placement
from sdpo.training.remedy import words
from sdpo.training.sinks import check_sinks

GPU_MEMORY = 80.0  # GiB
USUAL = Speeds()


@dataclass(frozen=True)
class Plan:
    """Sections of (name, value) lines, and tables of memory."""

    sections: dict[str, list[tuple[str, str]]]
    tables: list[Table] = field(default_factory=list)
    fits: bool = True

    def text(self) -> str:
        return "\n".join(f"{name}: {value}" for lines in self.sections.values() for name, value in lines)


def run(options) -> int:
    """Returns 1 if the run does not fit."""
    given = options.profile or ("gpu" if options.gpus else None)
    profile, reason = choose_profile(given, plan_only=True)
    console = SafeConsole()
    console.print(f"Profile {profile}: {reason}.")
    for name in ("gpus", "gpu_memory", "tflops", "bandwidth", "response_tokens", "price"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value}: give a number above 0.")
        if value is not None and profile == "cpu":
            raise UserError(f"--{name.replace('_', '-')} has no effect with profile cpu; add --profile gpu.")
    file, gpus = find_recipe(options.recipe, options.algorithm), options.gpus or known_gpus(profile)
    recipe = fitted(load_recipe(file, profile, options.overrides, gpus), file, options.overrides, gpus)
    refuse_recipe(recipe)
    given = {"tflops": options.tflops, "bandwidth": options.bandwidth}
    speeds = Speeds(
        **{name: value for name, value in given.items() if value is not None},
        response=options.response_tokens,
        price=options.price,
    )
    with console.status("checking the model, counting memory"):
        plan = make_plan(recipe, gpus, options.gpu_memory or GPU_MEMORY, speeds)
    show(console, plan)
    return 0 if plan.fits else 1


def make_plan(recipe: Recipe, gpus: int | None = None, gpu_memory: float = GPU_MEMORY, speeds: Speeds = USUAL) -> Plan:
    """What can be known before a start: data, tokenizer and model, a small model of the configuration, memory, time.

    gpus: of the machine, None for as many as the recipe asks for; gpu_memory: of each, in GiB.
    """
    build_algorithm(recipe)
    check_no_link(Path(recipe.run.directory) / recipe.name)
    check_sinks(recipe.tracking)
    _, dataset = load_checked(recipe, build_environment(recipe))
    note = check_numbers(recipe)
    planner = Planner(recipe, int(gpu_memory * GIB))
    moved = {} if gpus is None else placed_on(planner, recipe, gpus)
    recipe = changed(recipe, moved)
    parameters, longest = parameter_count(planner.config), longest_context(recipe)
    placement = plan_placement(recipe, cpus=os.cpu_count() or 1, gpus=float("inf"))
    try:
        memory: MemoryPlan | None = planner.plan(recipe)
        counted, tables = memory_lines(planner, memory), device_tables(memory)
    except UserError as error:
        memory, counted, tables = None, [("memory", str(error))], []
    named = {"tests": dataset.test_split, "problems": dataset.problem_split}
    splits = [f"{what} {how}" for what, how in named.items() if how]
    run, rollout = recipe.run, recipe.rollout
    updates = run.steps * recipe.learner.updates_per_batch
    generations, turns = run.steps * recipe.samples_per_step, recipe.environment.turns
    return Plan(
        {
            "run": [
                ("run", f"{recipe.name} ({recipe.algorithm.label}, profile {recipe.profile}, seed {recipe.seed})"),
                ("folder", f"{run.directory}/{recipe.name}"),
                *((("mirror", f"{run.mirror}/{recipe.name}"),) if run.mirror else ()),
            ],
            "data": [
                (
                    "data",
                    f"{dataset.name}: {len(dataset.train)} training, {len(dataset.evaluation)} evaluation tasks",
                ),
                *((("splits", ", ".join(splits)),) if splits else ()),
                *(("note", line) for line in dataset.report.lines()),
            ],
            "model": [
                ("model", f"{recipe.model.path}: {parameters / 1e6:,.1f} M parameters, {recipe.model.dtype}"),
                (
                    "context",
                    f"engines hold {recipe.max_model_len} tokens; longest sequence {longest_sequence(recipe)}; "
                    f"the model {longest}",
                ),
            ],
            "placement": [
                ("placement", placement.description),
                *((("for this many GPUs", words(moved)),) if moved else ()),
                ("learner", f"{recipe.learner.ranks} rank(s), ZeRO-{recipe.learner.zero_stage}"),
                *((("teacher", _teacher(recipe)),) if recipe.teacher_ranks else ()),
                *((("note", note),) if note else ()),
                ("engines", f"{rollout.engines} × tensor parallel {rollout.tensor_parallel_size}"),
            ],
            "budget": [
                (
                    "step",
                    f"{run.questions} questions × {rollout.responses} responses = {recipe.samples_per_step} samples"
                    + (f" of at most {turns} turns" if turns > 1 else ""),
                ),
                ("budget", f"{run.steps} steps, {generations:,} samples, {updates:,} optimiser steps"),
                ("at most", f"{generations * turns * rollout.max_response_tokens:,} response tokens"),
                ("evaluation", _evaluation(recipe, dataset)),
                *_cost(recipe, memory, speeds, dataset),
            ],
            "memory": counted,
        },
        tables,
        fits=memory is None or memory.fits,
    )


def _teacher(recipe: Recipe) -> str:
    other = "" if recipe.of_teacher() is recipe else f" with {recipe.of_teacher().model.path}"
    return f"{recipe.teacher_ranks} rank(s) of its own{other}"


def print_plan(recipe: Recipe) -> None:
    console = SafeConsole()
    with console.status("checking the model, counting memory"):
        plan = make_plan(recipe)
    show(console, plan)


def show(console: SafeConsole, plan: Plan) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for lines in plan.sections.values():
        for name, value in lines:
            table.add_row(f"[bold]{name}", value)
        table.add_row()
    for each in (table, *plan.tables):
        console.print(each)
    console.print("The recipe is valid. Nothing was started.")


def _cost(recipe: Recipe, memory: MemoryPlan | None, speeds: Speeds, dataset: Dataset) -> list[tuple[str, str]]:
    """Of a run on GPUs whose memory is known."""
    if memory is None or recipe.profile == "cpu" or memory.sequences < 1:
        return []
    problems = sum(map(len, dataset.evaluation_sets(recipe.evaluation.training_problems).values()))
    gpus = gpus_needed(recipe)
    found = budget(memory, speeds, gpus, problems * recipe.evaluation_samples)
    scoring = f" {found.score:,.0f} s score beside it," if recipe.teacher_ranks else ""
    length = "all at the mean given" if speeds.response else "all at full length"
    lines = [
        ("tokens per step", f"{found.sampled:,} sampled, {length}; {found.learned:,} computed by student and teacher"),
        (
            "time per step",
            f"{found.generate:,.0f} s generate,{scoring} {found.update:,.0f} s update = {found.step:,.0f} s, at "
            f"{speeds.bandwidth:g} TB/s per engine's GPU and {speeds.tflops:g} TFLOP/s per learner's "
            f"({found.flops / 1e15:,.1f} PFLOP)",
        ),
        ("run", f"{found.hours:,.1f} GPU hours on {gpus} GPU(s), evaluations included; judging and publishing are not"),
    ]
    if speeds.price is not None:
        lines.append(("cost", f"{found.hours * speeds.price:,.0f} at {speeds.price:g} per GPU hour"))
    return lines


def _evaluation(recipe: Recipe, dataset: Dataset) -> str:
    """Everything that one evaluation samples, whatever it is called in the results."""
    settings = recipe.evaluation
    every = f"every {settings.every} steps" if settings.every else "at the end"
    ks = ", ".join(f"pass@{k}" for k in settings.ks)
    samples = f"{recipe.evaluation_samples} samples at temperature {settings.temperature}"
    sets = dataset.evaluation_sets(settings.training_problems)
    sizes = [f"{len(problems)} {dataset_title(name)}" for name, problems in sets.items()]
    total = sum(map(len, sets.values())) * recipe.evaluation_samples
    return f"{every}: {' + '.join(sizes)} × {samples} = {total:,} ({ks}; thinking: {settings.thinking})"
