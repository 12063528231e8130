"""What a run is made of before anything is started.

Light to import: an environment opens its sandbox before torch and Ray come in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sdpo.config.checks import has_replies
from sdpo.config.importing import uncollected
from sdpo.config.model_files import (
    check_layers,
    check_model,
    check_teacher,
    load_config,
    load_generation_config,
    load_tokenizer,
    longest_sequence,
)
from sdpo.config.model_weights import check_weights
from sdpo.config.schema import Recipe
from sdpo.envs import Dataset, Environment, build_environment
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.sources import check_texts
from sdpo.rollout.servable import check_adapter, check_servable
from sdpo.rollout.startup import engine_args
from sdpo.tracking import Console
from sdpo.training.fitting import check_template
from sdpo.training.placement import engine_options

SOLUTIONS = 500  # whose lengths are looked at


@dataclass(frozen=True)
class Parts:
    """Checked against the recipe; an evaluation needs no more than these."""

    environment: Environment
    dataset: Dataset
    tokenizer: Any


@contextmanager
def prepared(recipe: Recipe, console: Console) -> Iterator[Parts]:
    """The parts of a run, its environment opened; progress and notes on the tasks go to the console.

    Raises UserError for whatever does not fit, before there is a folder with wrong settings in it.
    """
    with build_environment(recipe) as environment:
        yield read_parts(recipe, environment, console)


def read_parts(recipe: Recipe, environment: Environment, console: Console) -> Parts:
    """The parts of a run whose environment is open, as `prepared`."""
    with console.phase("reading the tasks", announce=True):
        tokenizer, dataset = load_checked(recipe, environment)
    for line in dataset.report.lines():
        console.message(line)
    return Parts(environment, dataset, tokenizer)


def load_checked(recipe: Recipe, environment: Environment) -> tuple[Any, Dataset]:
    """Tokenizer and tasks, checked against the recipe.  Raises UserError for whatever does not fit."""
    tokenizer, dataset = load_tokenizer(recipe), environment.load()
    check_prompts(recipe, dataset, tokenizer)
    config, options = load_config(recipe), engine_options(recipe)
    check_servable(config, recipe)
    if options.adapters is not None:
        check_adapter(config, recipe, options.adapters)
    engine_args(options)
    check_model(recipe, tokenizer)
    check_teacher(recipe, tokenizer)
    check_layers(recipe)
    return tokenizer, dataset


def check_prompts(recipe: Recipe, dataset: Dataset, tokenizer) -> None:
    """Every prompt must fit before anything is started.  Raises UserError for the first that does not."""
    check_template(recipe, tokenizer)
    contexts = ContextBuilder(tokenizer, recipe.context, recipe.model.thinking)
    if recipe.teacher is not None and recipe.context.demonstration in ("solution", "column"):
        check_texts(dataset.train, recipe.context.demonstration, recipe.context.column, "context.demonstration")
    if recipe.rollout.source != "policy":
        check_texts(dataset.train, recipe.rollout.source, recipe.context.column, "rollout.source", every=True)
    if has_replies(recipe) and (note := contexts.check_turns()):
        dataset.report.notes.append(note)
    neutralised = []
    for task in {t.id: t for t in (*dataset.train, *dataset.evaluation)}.values():
        contexts.prompt(task)
        if recipe.teacher is not None:
            contexts.check_room(task)
        if contexts.is_neutralised(task):
            neutralised.append(task.id)
    limit = recipe.rollout.max_response_tokens
    known = [t.solution for t in dataset.train[:SOLUTIONS] if t.solution is not None]
    if too_long := sum(len(tokenizer.encode(text, add_special_tokens=False)) > limit for text in known):
        dataset.report.notes.append(
            f"Of {len(known)} reference answers, {too_long} have more than rollout.max_response_tokens={limit} tokens."
        )
    if neutralised:
        dataset.report.notes.append(
            f"Special tokens are broken up in the messages of {len(neutralised)} tasks ({neutralised[0]}, …); "
            "context.trust_statements=true leaves them as they are."
        )


def check_numbers(recipe: Recipe) -> str | None:
    """Raises UserError for a model that the learner would compute wrongly, or not at all, or whose weights are broken,
    and for options of DeepSpeed that it does not take.

    Returns what is worth saying of how it is computed.  Takes a few seconds, and as long as its files take to be read.
    """
    from sdpo.learner.deepspeed_config import check_deepspeed

    check_deepspeed(recipe)
    check_weights(recipe.model.path)
    if (teacher := recipe.of_teacher()) is not recipe:
        check_weights(teacher.model.path)
        as_computed(teacher)
    return as_computed(recipe)[1]


def as_computed(recipe: Recipe) -> tuple[Recipe, str | None]:
    """The recipe with `learner.packing` and `model.attention` as the model needs them, and a line if that is news.

    Raises UserError as `check_numbers`, which has measured it already: within a process once is enough.
    """
    with uncollected():
        from sdpo.learner.model_check import check_configuration

    config, asked = load_config(recipe), (recipe.learner.packing, recipe.model.attention)
    given = recipe.model.attention, longest_sequence(recipe), load_generation_config(recipe), recipe.learner.packing
    found = check_configuration(config, *given, on_gpu=recipe.profile == "gpu")
    if (found.packing, found.attention) == asked:
        return recipe, None
    changed = {
        "learner": recipe.learner.model_copy(update={"packing": found.packing}),
        "model": recipe.model.model_copy(update={"attention": found.attention}),
    }
    how = f"without packing, one sequence per pass, with the {found.attention} attention of transformers"
    if found.packing == "auto":
        how = f"with model.attention={found.attention}"
    why = f": {found.reason}" if found.reason else ""
    return recipe.model_copy(update=changed), f"{config.model_type} is trained {how}{why}."
