"""`sdpo init`: a short recipe for a model and rows of one's own, with lengths that are measured on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from sdpo.algorithms.base import Distillation
from sdpo.config import registry
from sdpo.config.files import validate
from sdpo.config.hardware import choose_profile
from sdpo.config.model_files import load_config, load_tokenizer, longest_context
from sdpo.config.schema import Recipe, algorithm_class
from sdpo.config.sections import DataSettings
from sdpo.config.terminal import say
from sdpo.envs import build_environment
from sdpo.envs.recognised import Recognised, recognised
from sdpo.envs.rows.columns import HELD_OUT, TRAINING
from sdpo.envs.rows.source import training_source
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.templates import PUBLISHED, suited
from sdpo.tracking import Console
from sdpo.training import fitting
from sdpo.training.parts import load_checked

ROWS = 100  # that are looked at to find out what they are
HELD_OUT_FROM = 20  # tasks; of fewer none is spared for measuring alone
STEPS = 20
QUESTIONS, RESPONSES = {"cpu": 8, "gpu": 32}, {"cpu": 4, "gpu": 8}


@dataclass
class Draft:
    """A recipe in the making: its values, and comments by option (section.option)."""

    values: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)

    def set(self, option: str, value: Any, note: str = "") -> None:
        *sections, name = option.split(".")
        section = self.values
        for each in sections:
            section = section.setdefault(each, {})
        section[name] = value
        if note:
            self.notes[option] = note

    def recipe(self, profile: str, name: str) -> Recipe:
        """As it is resolved for a profile.  Raises UserError where it is not valid."""
        values = {key: dict(value) if isinstance(value, Mapping) else value for key, value in self.values.items()}
        for section, options in values.pop("profiles", {}).get(profile, {}).items():
            values[section] = {**values.get(section, {}), **options}
        return validate({**values, "profile": profile}, name)

    def text(self, values: Mapping[str, Any] | None = None, path: tuple[str, ...] = ()) -> Iterator[str]:
        """The lines of the file."""
        for name, value in (self.values if values is None else values).items():
            line, here = f"{'  ' * len(path)}{name}:", (*path, name)
            if isinstance(value, Mapping):
                yield line
                yield from self.text(value, here)
                continue
            scalar = yaml.safe_dump(value, allow_unicode=True, width=10**6).removesuffix("\n...\n").strip()
            note = self.notes.get(".".join(here))
            yield f"{line} {scalar}".ljust(36) + f"  # {note}" if note else f"{line} {scalar}"


def run(options) -> int:
    file = Path(options.file)
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"A recipe is a YAML file; call it {file.name}.yaml, for example.")
    if file.exists() and not options.force:
        raise UserError(f"{file} is there already. Give another name, or --force to write over it.")
    profile, _ = choose_profile(None, plan_only=True)
    with Console("init", 0) as console:
        with console.phase("reading the rows", announce=True):
            data, found = _rows(options.data, options.reward)
        with console.phase("measuring prompts with the model's tokenizer", announce=True):
            draft = _draft(file.stem, options, data, found)
            said = _measure(draft, profile)
        with console.phase("trying the recipe", announce=True):
            for each in ("cpu", "gpu"):  # what is written must be right for both
                recipe = draft.recipe(each, str(file))
                if each == profile:
                    load_checked(recipe, build_environment(recipe))
    head = "# Written by `sdpo init`.  All other options have their defaults: `sdpo options`.\n"
    file.write_text(head + "\n".join(draft.text()) + "\n", encoding="utf-8")
    for line in (*said, f"Rewards: {found.rewards}."):
        say(line)
    say(f"Wrote {file}. Next:\n  sdpo tasks check {file}    # grades some answers, starts nothing\n  sdpo train {file}")
    return 0


def _rows(data: str, reward: str | None) -> tuple[dict[str, Any], Recognised]:
    """The section `data`, and what grades the rows.  Raises UserError where nobody knows how."""
    where = "source" if registry.is_reference(data) and not Path(data).exists() else "path"
    given = islice(training_source(DataSettings(**{where: data})).rows, ROWS)
    rows = [each.row for each in given if isinstance(each.row, dict)]
    found = Recognised("function", f"{reward}, a function of yours") if reward else recognised(rows)
    if found is None:
        columns = ", ".join(rows[0]) if rows else "none"
        raise UserError(
            f"It is not known what an answer to a row of {data} is worth: the rows (columns: {columns}) have neither "
            "tests, nor choices, nor answers in numbers or formulas. Write a function reward(task, response) that "
            "returns a number, or a number and words; task.content is the row (docs/own-task.md). Give it as --reward "
            "my_reward.py:reward."
        )
    section = {where: data} | ({"source": found.source} if found.source else {})
    marks = {row["split"] if isinstance(row.get("split"), str) else None for row in rows}
    if found.kind != "code" and marks <= {*TRAINING, *HELD_OUT} and marks & {*TRAINING} and marks & {*HELD_OUT}:
        section["problem_split"] = "marked"
    return section, found


def _draft(name: str, options, data: dict[str, Any], found: Recognised) -> Draft:
    """What is given, and what does not have to be measured."""
    try:
        algorithm = algorithm_class(options.algorithm)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    if not algorithm.samples_itself or issubclass(algorithm, Distillation):
        raise UserError(
            f"{options.algorithm} learns from reference answers, and its recipe has other settings than one with "
            "rewards. Begin with a copy of one of recipes/livecodebench/ (docs/methods.md)."
        )
    draft = Draft({"recipe": name, "algorithm": {"name": options.algorithm}, "model": {"path": options.model}})
    draft.values |= {"data": data, "environment": {"kind": found.kind}, "context": {}, "rollout": {}, "learner": {}}
    draft.notes["environment.kind"] = f"rewards: {found.rewards}"
    if options.reward:
        draft.set("environment.reward", options.reward)
    draft.set("evaluation.every", 5, "steps")
    draft.set("run.steps", STEPS)
    draft.set("profiles.cpu.model.dtype", "float32")
    draft.set("profiles.cpu.rollout.enforce_eager", True)
    draft.set("profiles.cpu.learner.zero_stage", 0)
    return draft


def _measure(draft: Draft, profile: str) -> list[str]:
    """Set what follows from model and tasks.  Returns it in words."""
    recipe = draft.recipe(profile, draft.values["recipe"])
    tokenizer, config, positions = load_tokenizer(recipe), load_config(recipe), longest_context(recipe)
    template, thinking = suited(tokenizer), fitting.thinking_of(tokenizer)
    if template != PUBLISHED.name:
        draft.set("context.template", template, "the one that the model was made for")
    if thinking is False:
        draft.set("model.thinking", False, "the template can leave thoughts out; with true they need more tokens")
    recipe = draft.recipe(profile, recipe.recipe)
    dataset = build_environment(recipe).load()
    tasks = {task.id: task for task in (*dataset.train, *dataset.evaluation)}
    if "problem_split" not in draft.values["data"] and len(tasks) >= HELD_OUT_FROM:
        draft.set("data.problem_split", "hash", "a quarter of the tasks is held out, and only measured on")
        dataset = build_environment(draft.recipe(profile, recipe.recipe)).load()
    found = fitting.measured(tasks.values(), tokenizer, template, thinking)
    size = fitting.parameter_count(config)
    rate, chat = fitting.learning_rate(size), ChatFormat(tokenizer, thinking)
    draft.notes["model.path"] = f"{size / 1e6:,.1f} M parameters; it holds {positions:,} tokens"
    draft.set("learner.lr", rate, "to begin with, by the model's size; try a third and three times as much")
    notes = fitting.reasons(found, len(tasks))
    taught, trained = recipe.teacher is not None, len(dataset.train)
    if taught:
        draft.set("context.feedback", "fallback", "shown to the teacher where no sibling succeeded; or always, never")
    for each in ("cpu", "gpu"):
        room = fitting.response_room(chat, each)
        for option, tokens in fitting.limits(found, positions, room).items():
            if taught or option != "context.max_reprompt_tokens":
                draft.set(f"profiles.{each}.{option}", tokens, notes[option])
        draft.set(f"profiles.{each}.rollout.responses", RESPONSES[each], "of each question")
        draft.set(f"profiles.{each}.run.questions", min(QUESTIONS[each], trained), "of each step")
    draft.values = {name: value for name, value in draft.values.items() if value != {}}
    return [
        f"Model: {recipe.model.path}, {config.architectures[0] if config.architectures else config.model_type}, "
        f"{draft.notes['model.path']}.",
        f"Tasks: {len(tasks)}; {notes['context.max_prompt_tokens']} tokens, {notes['rollout.max_response_tokens']}.",
        f"Template: {template}. Learning rate: {rate:g}.",
    ]
