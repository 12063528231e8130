"""What a model and its tasks ask of a recipe: template, lengths, and where to begin with the learning rate.

`sdpo init` writes it into a recipe.  A recipe for models with a vocabulary of their own, as the bundled policies have
one, gets it where another model is named in their place; one that asks for both itself is refused with it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdpo.config.files import load_resolved
from sdpo.config.identity import flatten
from sdpo.config.model_files import load_config, load_tokenizer, longest_context
from sdpo.config.other_model import other_model
from sdpo.config.schema import Recipe, changed
from sdpo.config.sections import ContextSettings
from sdpo.config.terminal import say
from sdpo.envs import build_environment
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.templates import TEMPLATES, suited, unknown_words
from sdpo.tracking import Console
from sdpo.types import Task

FEEDBACK = 256  # tokens that a teacher's prompt has for feedback, beside the question and one response
LEAST = 16  # a response of fewer tokens answers nothing
ROUND = 64
FITTED = (
    "context.template",
    "model.thinking",
    "context.max_prompt_tokens",
    "context.max_reprompt_tokens",
    "rollout.max_response_tokens",
    "learner.lr",
)
# Parameters of the model → learning rate to begin with.  The last one is published for 8 B parameters with feedback
# (arXiv 2601.20802, the tables of hyper-parameters); the first one is that of the bundled policies.
RATES = ((1e7, 1e-3), (1e8, 1e-4), (4e9, 1e-5), (math.inf, 1e-6))


@dataclass(frozen=True)
class Lengths:
    """Tokens of a set of tasks, counted with a model's tokenizer and chat template."""

    prompt: int  # the longest prompt
    frame: int  # the longest prompt of a teacher before anything is inserted
    answer: int | None  # the longest reference answer; None: there are none


def measured(tasks: Iterable[Task], tokenizer: Any, template: str, thinking: bool | None) -> Lengths:
    """Raises UserError for a tokenizer without a chat template, and for messages that it cannot render."""
    most = 2**31
    settings = ContextSettings(template=template, max_prompt_tokens=most, max_reprompt_tokens=most)
    contexts = ContextBuilder(tokenizer, settings, thinking)
    prompts, frames, answers = [0], [0], []
    for task in tasks:
        prompts.append(len(contexts.prompt(task)))
        frames.append(contexts.check_room(task))
        if task.solution is not None:
            answers.append(len(tokenizer.encode(task.solution, add_special_tokens=False)))
    return Lengths(max(prompts), max(frames), max(answers, default=None))


def thinking_of(tokenizer: Any) -> bool | None:
    """`model.thinking` to begin with: false where the chat template can leave thoughts out, else its default.

    Raises UserError for a tokenizer without a chat template.
    """
    asked = [{"role": "user", "content": "What is 1 + 1?"}]
    rendered = {ContextBuilder(tokenizer, ContextSettings(), on).chat.render(asked) for on in (True, False)}
    return False if len(rendered) > 1 else None


def limits(found: Lengths, positions: int, room: int) -> dict[str, int]:
    """Options of a recipe → tokens, which together stay within the model's positions.

    room: tokens that a response should have at least, and twice as many as the longest reference answer.  A teacher's
    prompt holds the question, a whole response as the solution, and feedback.  Raises UserError where the positions
    hold no response beside the longest question.
    """
    left = (positions - found.frame - FEEDBACK) // 2
    response = min(_rounded(max(room, 2 * (found.answer or 0))), left // LEAST * LEAST)
    if response < LEAST:
        raise UserError(
            f"The model holds {positions} tokens, and the longest prompt has {found.prompt}: too little is left for a "
            "response and for a teacher's prompt, which holds question, solution and feedback. Leave the longest rows "
            "out, or take a model that holds more."
        )
    return {
        "context.max_prompt_tokens": min(_rounded(found.prompt), positions - response),
        "context.max_reprompt_tokens": min(_rounded(found.frame + response + FEEDBACK), positions - response),
        "rollout.max_response_tokens": response,
    }


def _rounded(tokens: int) -> int:
    return -(-tokens // ROUND) * ROUND


def parameter_count(config: Any) -> int:
    """Number of a model's parameters, from its configuration alone."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def learning_rate(count: int) -> float:
    """Where to begin for a model of so many parameters."""
    return next(rate for most, rate in RATES if count < most)


def response_room(chat: ChatFormat, profile: str) -> int:
    """Tokens for a response of which nothing is known: thoughts take thousands, a CPU is slow."""
    if profile == "cpu":
        return 128
    return 8192 if chat.opens_thought else 1024


def reasons(found: Lengths, tasks: int) -> dict[str, str]:
    """Where the lengths come from, by option."""
    answers = "no row has a reference answer" if found.answer is None else f"the longest answer has {found.answer}"
    return {
        "context.max_prompt_tokens": f"the longest of {tasks} prompts has {found.prompt}",
        "context.max_reprompt_tokens": "the teacher's prompt: question, a right response, feedback",
        "rollout.max_response_tokens": answers,
    }


def suiting(recipe: Recipe, tokenizer: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Option → what suits the recipe's model and tasks, and option → where that comes from.

    Raises UserError for tasks that cannot be read, and where the model's positions hold no response.
    """
    template = suited(tokenizer)
    thinking = thinking_of(tokenizer) if recipe.model.thinking is None else recipe.model.thinking
    dataset = build_environment(changed(recipe, {"context.template": template})).load()
    tasks = {task.id: task for task in (*dataset.train, *dataset.evaluation)}
    found = measured(tasks.values(), tokenizer, template, thinking)
    room = response_room(ChatFormat(tokenizer, thinking), recipe.profile)
    count = parameter_count(load_config(recipe))
    values = {
        "context.template": template,
        "model.thinking": thinking,
        **limits(found, longest_context(recipe), room),
        "learner.lr": learning_rate(count),
    }
    if recipe.teacher is None:
        del values["context.max_reprompt_tokens"]
    why = {
        "context.template": "the wording for chat models",
        "model.thinking": "the chat template can leave thoughts out",
        **reasons(found, len(tasks)),
        "learner.lr": f"to begin with, for {count / 1e6:,.1f} M parameters",
    }
    return values, why


def fitted(
    recipe: Recipe, file: Path, overrides: Sequence[str], gpus: int | None = None, recorded: Path | None = None
) -> Recipe:
    """The recipe of `file` with the values of `suiting`, where it was written for a model with a vocabulary that the
    one named in its place does not have; the recipe itself where it was not.

    What was set together with the model, or later, stays.  recorded: the resolved recipe of the run, which keeps the
    values that it was begun with.  Says what is changed.  Raises UserError as `suiting` and `load_tokenizer` do.
    """
    other = other_model(file, recipe.profile, overrides, gpus)
    template = None if other is None else TEMPLATES.get(other.template)
    if other is None or template is None or not template.vocabulary:
        return recipe
    tokenizer = load_tokenizer(recipe)
    if not unknown_words(template, tokenizer):
        return recipe
    before = load_resolved(recorded) if recorded is not None and recorded.is_file() else None
    if before is not None and before.model.path == recipe.model.path:
        options = flatten(before.model_dump())
        values = {option: options[option] for option in FITTED}
        why = dict.fromkeys(FITTED, "as when the run began")
    else:
        with Console(recipe.name, 0) as console, console.phase("measuring the tasks", announce=True):
            values, why = suiting(recipe, tokenizer)
    now = flatten(recipe.model_dump())
    change = {option: v for option, v in values.items() if option not in other.since and v != now[option]}
    if change:
        say(f"The recipe was written for {other.path}. For {recipe.model.path}, which has another vocabulary:")
    for option, value in change.items():
        say(f"  {option}: {_word(now[option])} → {_word(value)} ({why[option]})")
    return changed(recipe, change)


def _word(value: Any) -> str:
    """As on the command line."""
    return f"{value:g}" if isinstance(value, float) else yaml.safe_dump(value).split("\n")[0]


def check_template(recipe: Recipe, tokenizer: Any) -> None:
    """Raises UserError for a template that the model was not made for, with what would suit the model and the tasks."""
    template = TEMPLATES[recipe.context.template]
    if not (unknown := unknown_words(template, tokenizer)):
        return
    values, why = suiting(recipe, tokenizer)
    advice = " ".join(f"{option}={_word(value)}" for option, value in values.items() if value is not None)
    raise UserError(
        f"context.template={template.name} is for models that were trained on it, as the bundled policies were: its "
        f"headings are tokens of their vocabulary, and {recipe.model.path} has no token {unknown[0]!r}. Lengths and "
        "learning rate of the recipe are probably such a policy's, too. For this model and these tasks "
        f"({why['context.max_prompt_tokens']} tokens), give for example: {advice}. Or let a recipe be written for "
        f"them: sdpo init my.yaml --model {shlex.quote(recipe.model.path)} --data FILE."
    )
