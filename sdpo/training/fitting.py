"""What a model and its tasks ask of a recipe: template, lengths, and where to begin with the learning rate.

`sdpo init` writes it into a recipe; a run with a recipe that was made for another model is refused with it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sdpo.config.model_files import load_config, longest_context
from sdpo.config.schema import Recipe
from sdpo.config.sections import ContextSettings
from sdpo.envs import build_environment
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.context import ContextBuilder
from sdpo.prompts.templates import PUBLISHED, TEMPLATES, unknown_words
from sdpo.types import Task

FEEDBACK = 256  # tokens that a teacher's prompt has for feedback, beside the question and one response
LEAST = 16  # a response of fewer tokens answers nothing
ROUND = 64
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


def check_template(recipe: Recipe, tokenizer: Any) -> None:
    """Raises UserError for a template that the model was not made for, with what would suit the model and the tasks."""
    template, usual = TEMPLATES[recipe.context.template], PUBLISHED.name
    if not (unknown := unknown_words(template, tokenizer)):
        return
    other = recipe.model_copy(update={"context": recipe.context.model_copy(update={"template": usual})})
    dataset = build_environment(other).load()
    found = measured((*dataset.train, *dataset.evaluation), tokenizer, usual, recipe.model.thinking)
    room = response_room(ChatFormat(tokenizer, recipe.model.thinking), recipe.profile)
    rate = learning_rate(parameter_count(load_config(recipe)))
    wanted = {"context.template": usual, **limits(found, longest_context(recipe), room), "learner.lr": f"{rate:g}"}
    if recipe.teacher is None:
        del wanted["context.max_reprompt_tokens"]
    advice = " ".join(f"{option}={value}" for option, value in wanted.items())
    raise UserError(
        f"context.template={template.name} is for models that were trained on it, as the bundled policies were: its "
        f"headings are tokens of their vocabulary, and {recipe.model.path} has no token {unknown[0]!r}. Lengths and "
        "learning rate of the recipe are probably such a policy's, too. For this model and these tasks, whose longest "
        f"prompt has {found.prompt} tokens, give for example: {advice}. Or let a recipe be written for them: "
        f"sdpo init my.yaml --model {shlex.quote(recipe.model.path)} --data FILE."
    )
