"""The texts around a problem: how a student is asked, and how a teacher is told what went wrong.

`PUBLISHED` is what SDPO used on LiveCodeBench (arXiv 2601.20802, released code).  `SDFT` has the teacher's text of
arXiv 2601.19897; `OPSD` says in this project's own words what that of arXiv 2601.18734 asks for.  `COMPACT` is this
project's own short form for the bundled policy, whose vocabulary has a few hundred words and whose answers have a few
dozen tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sandbox import Judgement
from sandbox.feedback import render_feedback
from sdpo.envs.code.compact import compact_feedback


@dataclass(frozen=True)
class Template:
    """Pieces of text; `{…}` fields are filled in by `sdpo.prompts.context`."""

    name: str
    question: str  # fields: statement
    question_functional: str  # fields: statement, starter_code
    reprompt: str  # fields: prompt, solution, feedback
    solution: str  # field: successful_previous_attempt
    feedback: str  # field: feedback_raw
    render_feedback: Callable[[Judgement], str]


_LCB_INSTRUCTION = (
    "You are a coding expert. You will be given a coding problem, and you need to write a correct Python program that "
    "matches the specification and passes all tests. The time limit is 1 second. You may start by outlining your "
    "thought process. In the end, please provide the complete code in a code block enclosed with ``` ```."
)

PUBLISHED = Template(
    name="published",
    question=_LCB_INSTRUCTION + "\n\n{statement}",
    question_functional=_LCB_INSTRUCTION
    + "\n\n{statement}\n\nYour solution should have the following signature: ```python\n{starter_code}\n```",
    reprompt="{prompt}{solution}{feedback}\n\nCorrectly solve the original question.\n",
    solution="\nCorrect solution:\n\n{successful_previous_attempt}\n\n",
    feedback="\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}\n\n",
    render_feedback=render_feedback,
)

COMPACT = Template(
    name="compact",
    question="{statement}",
    question_functional="{statement}\n{starter_code}",
    reprompt="{prompt}{solution}{feedback}",
    solution="\nSolution:\n{successful_previous_attempt}",
    feedback="\nFeedback:\n{feedback_raw}",
    render_feedback=compact_feedback,
)

SDFT = replace(
    PUBLISHED,
    name="sdft",
    reprompt="{prompt}{solution}{feedback}\n\nNow answer with a response of your own, including the thinking process.",
    solution="\n\nThis is an example for a response to the question:\n{successful_previous_attempt}",
)

OPSD = replace(
    PUBLISHED,
    name="opsd",
    reprompt="{prompt}{solution}{feedback}\n\nMake sure that you understand why the reference solution is right. Then "
    "solve the problem yourself, step by step and in your own words.",
    solution="\n\nA reference solution:\n\n{successful_previous_attempt}",
)

TEMPLATES = {t.name: t for t in (PUBLISHED, COMPACT, SDFT, OPSD)}
