"""From a problem to the student's prompt, and from what happened to the teacher's prompt.

The teacher sees the same chat template, system message and thinking mode as the student, with a demonstration and/or
feedback behind the question (arXiv 2601.20802 §3 and its released templates; texts in `sdpo.templates`).  Everything
that is inserted is cut to its token budget *before* it is put into the template, so that neither the question nor the
instruction nor the generation header can be cut; each cut is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sandbox import Verdict
from sdpo.errors import UserError
from sdpo.recipe import ContextSettings
from sdpo.templates import TEMPLATES
from sdpo.types import Group, Problem

CUT_MARK = "\n[... cut]"
# Names in `ContextBuilder.counts`
COUNTED = ("demonstration_cut", "feedback_cut", "feedback_swapped", "special_tokens_neutralised")


@dataclass(frozen=True)
class Context:
    """What a teacher is told beyond the question; at least one of the two is there."""

    demonstration: str | None
    feedback: str | None


@dataclass
class ContextBuilder:
    """Builds token prompts with one tokenizer and one template.  `counts` says how often something was cut."""

    tokenizer: Any  # a Hugging Face tokenizer with a chat template
    settings: ContextSettings
    thinking: bool | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.template = TEMPLATES[self.settings.template]
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError("The model's tokenizer has no chat template; give a model folder with chat_template.jinja.")
        specials = {str(t) for t in self.tokenizer.all_special_tokens if str(t).strip()} | {"<think>", "</think>"}
        self._specials = re.compile("|".join(re.escape(t) for t in sorted(specials, key=len, reverse=True)))

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """The student's prompt, generation header included.  Raises UserError when it is longer than the budget."""
        ids = self._chat(self._question(problem))
        if len(ids) > self.settings.max_prompt_tokens:
            raise UserError(
                f"The prompt of problem {problem.id!r} has {len(ids)} tokens, more than context.max_prompt_tokens="
                f"{self.settings.max_prompt_tokens}. Raise that option."
            )
        return ids

    def context(self, group: Group, index: int, rng: np.random.Generator) -> Context | None:
        """The teacher's context for response `index` of the group; None when there is nothing to tell.

        A demonstration is another response of the group that passed, chosen uniformly at random (never the response
        itself).  Feedback exists for failed responses only; when it is shown is `context.feedback`.
        """
        demonstration = feedback = None
        if self.settings.demonstration == "random":
            others = [i for i, judgement in enumerate(group.judgements) if judgement.passed and i != index]
            if others:
                demonstration = self._clean(group.rollouts[others[rng.integers(len(others))]].text)
        wanted = self.settings.feedback == "always" or (self.settings.feedback == "fallback" and demonstration is None)
        judgement = group.judgements[index]
        # A sandbox that broke says nothing about the program, so its text must not teach.
        if wanted and not judgement.passed and judgement.verdict != Verdict.SANDBOX_ERROR:
            feedback = self.template.render_feedback(judgement)
        return Context(demonstration, feedback) if demonstration or feedback else None

    def reprompt(self, problem: Problem, context: Context) -> tuple[int, ...]:
        """The teacher's prompt of at most `max_reprompt_tokens` tokens, generation header included."""
        question = self._question(problem)
        texts = {"demonstration": context.demonstration, "feedback": context.feedback}
        inserted = {name: self._neutralise(text) for name, text in texts.items() if text}
        budget = self.settings.max_reprompt_tokens
        ids = self._chat(self._teacher_question(question, inserted))
        if len(ids) <= budget:
            return ids
        room = budget - self.check_room(problem, tuple(inserted))
        # Cut to the budget, then a little more for as long as token merges at the seams make the whole too long.
        while room > 0:
            ids = self._chat(self._teacher_question(question, self._cut(inserted, room)))
            if len(ids) <= budget:
                return ids
            room -= max(1, len(ids) - budget)
        raise AssertionError("check_room leaves room for the marks of a cut")

    def check_room(self, problem: Problem, names: tuple[str, ...] = ("demonstration", "feedback")) -> int:
        """Tokens of a teacher prompt before anything is inserted.  Raises UserError when too little is left for it."""
        empty = dict.fromkeys(names, "")
        frame = len(self._chat(self._teacher_question(self._question(problem), empty)))
        marks = len(names) * (len(self.tokenizer.encode(CUT_MARK, add_special_tokens=False)) + 8)
        if frame + marks > self.settings.max_reprompt_tokens:
            raise UserError(
                f"Problem {problem.id!r} leaves no room for feedback: its teacher prompt takes {frame} of "
                f"context.max_reprompt_tokens={self.settings.max_reprompt_tokens} before anything is inserted. Raise "
                "that option."
            )
        return frame

    def _cut(self, inserted: dict[str, str], room: int) -> dict[str, str]:
        """Share `room` tokens: each text gets what it needs if that is at most its half, else what the other leaves."""
        encoded = {name: self.tokenizer.encode(text, add_special_tokens=False) for name, text in inserted.items()}
        shares = {name: min(len(ids), room // len(encoded)) for name, ids in encoded.items()}
        for name, ids in encoded.items():
            shares[name] = min(len(ids), room - sum(n for other, n in shares.items() if other != name))
        result = {}
        mark = len(self.tokenizer.encode(CUT_MARK, add_special_tokens=False))
        for name, ids in encoded.items():
            result[name] = inserted[name]
            if shares[name] < len(ids):
                self.counts[f"{name}_cut"] += 1
                result[name] = self.tokenizer.decode(ids[: max(0, shares[name] - mark)]) + CUT_MARK
        return result

    def _question(self, problem: Problem) -> str:
        if problem.functional or problem.starter_code:
            return self.template.question_functional.format(
                statement=problem.statement, starter_code=problem.starter_code
            )
        return self.template.question.format(statement=problem.statement)

    def _teacher_question(self, question: str, inserted: dict[str, str]) -> str:
        template = self.template
        solution = feedback = ""
        if "demonstration" in inserted:
            solution = template.solution.format(successful_previous_attempt=inserted["demonstration"])
        if "feedback" in inserted:
            feedback = template.feedback.format(feedback_raw=inserted["feedback"])
        return template.reprompt.format(prompt=question, solution=solution, feedback=feedback)

    def _chat(self, content: str) -> tuple[int, ...]:
        options = {} if self.thinking is None else {"enable_thinking": self.thinking}
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **options,
        )
        return tuple(ids)

    def _clean(self, response: str) -> str:
        if not self.settings.remove_thinking:
            return response
        # A template may open <think> in the prompt, so that only the closing tag is part of the response.
        return re.sub(r"\A.*</think>", "", response, flags=re.DOTALL).strip()

    def _neutralise(self, text: str) -> str:
        """Break up special tokens in inserted text: it must not be able to end a turn or to start one."""
        clean, count = self._specials.subn(lambda m: m.group()[0] + " " + m.group()[1:], text)
        self.counts["special_tokens_neutralised"] += bool(count)
        return clean
