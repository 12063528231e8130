"""`sdpo train --dry-run`: everything that can be known about a run before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from sdpo.algorithms import build_algorithm
from sdpo.config.model_files import load_config, longest_context
from sdpo.config.safe_console import SafeConsole
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset, build_environment
from sdpo.tracking.metric_names import dataset_title
from sdpo.tracking.run_folder import check_no_link
from sdpo.training.fitting import parameter_count
from sdpo.training.parts import check_numbers, load_checked
from sdpo.training.placement import plan_placement
from sdpo.training.sinks import check_sinks

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """Sections of (name, value) lines."""

    sections: dict[str, list[tuple[str, str]]]

    def text(self) -> str:
        return "\n".join(f"{name}: {value}" for lines in self.sections.values() for name, value in lines)


def make_plan(recipe: Recipe) -> Plan:
    """What can be known before a start: data, tokenizer and model, and a small model of the configuration."""
    build_algorithm(recipe)
    check_no_link(Path(recipe.run.directory) / recipe.name)
    check_sinks(recipe.tracking)
    _, dataset = load_checked(recipe, build_environment(recipe))
    note = check_numbers(recipe)
    parameters, longest = parameter_count(load_config(recipe)), longest_context(recipe)
    placement = plan_placement(recipe, cpus=_cores(), gpus=float("inf"))
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
                ("splits", f"tests {dataset.test_split}, problems {dataset.problem_split}"),
                *(("note", line) for line in dataset.report.lines()),
            ],
            "model": [
                ("model", f"{recipe.model.path}: {parameters / 1e6:,.1f} M parameters, {recipe.model.dtype}"),
                ("context", f"engines hold {recipe.max_model_len} tokens; the model {longest}"),
                *_memory(recipe, parameters),
            ],
            "placement": [
                ("placement", placement.description),
                ("learner", f"{recipe.learner.ranks} rank(s), ZeRO-{recipe.learner.zero_stage}"),
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
            ],
        }
    )


def print_plan(recipe: Recipe) -> None:
    console = SafeConsole()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for lines in make_plan(recipe).sections.values():
        for name, value in lines:
            table.add_row(f"[bold]{name}", value)
        table.add_row()
    console.print(table)
    console.print("The recipe is valid. Nothing was started.")


def _memory(recipe: Recipe, parameters: int) -> list[tuple[str, str]]:
    """Weights and optimiser of one learner rank; activations and logits come on top."""
    learner = recipe.learner
    half = recipe.model.dtype == "bfloat16"
    weights, gradients, optimizer = (2, 4, 12) if half else (4, 4, 8)
    shards = [learner.ranks if learner.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    own = sum(b / s for b, s in zip((weights, gradients, optimizer), shards, strict=True))
    lines = [("learner memory", f"{parameters * own / GIB:,.1f} GiB per rank for student and optimiser")]
    copies = 0.0
    if recipe.teacher is not None and recipe.teacher.kind != "live":
        copies += weights + (4 if recipe.teacher.kind == "ema" and half else 0)
    if recipe.reference is not None and (recipe.teacher is None or recipe.teacher.kind in ("ema", "live")):
        copies += weights
    if copies:
        lines.append(
            ("teacher memory", f"{parameters * copies / shards[0] / GIB:,.1f} GiB per rank for teacher and reference")
        )
    lines.append(
        ("engine memory", f"{parameters * weights / recipe.rollout.tensor_parallel_size / GIB:,.1f} GiB of weights")
    )
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


def _cores() -> int:
    import os

    return os.cpu_count() or 1
