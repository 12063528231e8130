"""The texts around a question: how a teacher is told what went wrong, or shown a solution.

`PUBLISHED` is what SDPO used on LiveCodeBench (arXiv 2601.20802, released code).  `DEMONSTRATION` is the teacher's text
of SDFT (arXiv 2601.19897); `REFERENCE` says in this project's own words what that of OPSD (arXiv 2601.18734) asks for.
`COMPACT` is this project's own short form for the bundled policy, whose vocabulary has a few hundred words and whose
answers have a few dozen tokens.  The question itself comes from the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Template:
    """Pieces of text; `{…}` fields are filled in by `sdpo.prompts.context`."""

    name: str
    reprompt: str  # fields: prompt, solution, feedback
    solution: str  # field: successful_previous_attempt
    feedback: str  # field: feedback_raw
    vocabulary: tuple[str, ...] = ()  # texts that are single tokens of every model that was trained on this template


PUBLISHED = Template(
    name="published",
    reprompt="{prompt}{solution}{feedback}\n\nCorrectly solve the original question.\n",
    solution="\nCorrect solution:\n\n{successful_previous_attempt}\n\n",
    feedback="\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}\n\n",
)

COMPACT = Template(
    name="compact",
    reprompt="{prompt}{solution}{feedback}",
    solution="\nSolution:\n{successful_previous_attempt}",
    feedback="\nFeedback:\n{feedback_raw}",
    vocabulary=("\nSolution:\n", "\nFeedback:\n"),
)

DEMONSTRATION = replace(
    PUBLISHED,
    name="demonstration",
    reprompt="{prompt}{solution}{feedback}\n\nNow answer with a response of your own, including the thinking process.",
    solution="\n\nThis is an example for a response to the question:\n{successful_previous_attempt}",
)

REFERENCE = replace(
    PUBLISHED,
    name="reference",
    reprompt="{prompt}{solution}{feedback}\n\nMake sure that you understand why the reference solution is right. Then "
    "solve the problem yourself, step by step and in your own words.",
    solution="\n\nA reference solution:\n\n{successful_previous_attempt}",
)

TEMPLATES = {t.name: t for t in (PUBLISHED, COMPACT, DEMONSTRATION, REFERENCE)}


def unknown_words(template: Template, tokenizer: Any) -> list[str]:
    """Of a template's vocabulary what is not a single token; a model with such texts was not made for the template."""
    return [text for text in template.vocabulary if len(tokenizer.encode(text, add_special_tokens=False)) != 1]


def suited(tokenizer: Any) -> str:
    """The name of the template that a tokenizer was made for; the published one, where it was made for none."""
    made_for = [t.name for t in TEMPLATES.values() if t.vocabulary and not unknown_words(t, tokenizer)]
    return made_for[0] if made_for else PUBLISHED.name
