"""From a task to the student's prompt, and from what happened to the teacher's prompt.

The teacher sees the same chat template and system message as the student (and its thinking mode, unless the recipe
gives it its own), with a demonstration and/or feedback behind the question (arXiv 2601.20802 §3 and its released
templates; the texts are in `templates`, where they come from in `sources`).  Everything that is inserted is cut to its
token budget *before* it is put into the template, so that neither the question nor the instruction nor the generation
header can be cut; each cut is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdpo.config.schema import ContextSettings
from sdpo.errors import UserError
from sdpo.prompts.sources import demonstrations, environment_feedback
from sdpo.prompts.templates import TEMPLATES
from sdpo.types import Group, Hint, Task

CUT_MARK = "\n[... cut]"
# Names in `ContextBuilder.counts`
COUNTED = ("demonstration_cut", "feedback_cut", "special_tokens_neutralised")


@dataclass
class ContextBuilder:
    """Builds token prompts with one tokenizer and one template.  `counts` says how often something was cut."""

    tokenizer: Any  # a Hugging Face tokenizer with a chat template
    settings: ContextSettings
    thinking: bool | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.template = TEMPLATES[self.settings.template]
        self._demonstration = demonstrations(self.settings.demonstration, self.settings.column)
        own = self.settings.teacher_thinking
        self._teacher_thinking = self.thinking if own is None else own
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError("The model's tokenizer has no chat template; give a model folder with chat_template.jinja.")
        specials = {str(t) for t in self.tokenizer.all_special_tokens if str(t).strip()} | {"<think>", "</think>"}
        self._specials = re.compile("|".join(re.escape(t) for t in sorted(specials, key=len, reverse=True)))

    def prompt(self, task: Task) -> tuple[int, ...]:
        """The student's prompt, generation header included.  Raises UserError when it is longer than the budget."""
        ids = self._chat(task, task.messages[-1]["content"], self.thinking)
        if len(ids) > self.settings.max_prompt_tokens:
            raise UserError(
                f"The prompt of task {task.id!r} has {len(ids)} tokens, more than context.max_prompt_tokens="
                f"{self.settings.max_prompt_tokens}. Raise that option."
            )
        return ids

    def hint(self, group: Group, index: int, rng: np.random.Generator) -> Hint | None:
        """What the teacher is told about response `index` of the group; None when there is nothing to tell.

        The demonstration's source is `context.demonstration`.  Feedback exists for failed responses only; when it is
        shown is `context.feedback`.
        """
        demonstration = self._demonstration(group, index, rng)
        if demonstration is not None:
            demonstration = self._clean(demonstration)
        wanted = self.settings.feedback == "always" or (self.settings.feedback == "fallback" and demonstration is None)
        feedback = environment_feedback(group, index, rng) if wanted else None
        return Hint(demonstration, feedback) if demonstration or feedback else None

    def reprompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        """The teacher's prompt of at most `max_reprompt_tokens` tokens, generation header included."""
        texts = {"demonstration": hint.demonstration, "feedback": hint.feedback}
        inserted = {name: self._neutralise(text) for name, text in texts.items() if text}
        budget = self.settings.max_reprompt_tokens
        ids = self._teacher_chat(task, inserted)
        if len(ids) <= budget:
            return ids
        room = budget - self.check_room(task, tuple(inserted))
        # Cut to the budget, then a little more for as long as token merges at the seams make the whole too long.
        while room > 0:
            ids = self._teacher_chat(task, self._cut(inserted, room))
            if len(ids) <= budget:
                return ids
            room -= max(1, len(ids) - budget)
        raise AssertionError("check_room leaves room for the marks of a cut")

    def check_room(self, task: Task, names: tuple[str, ...] = ("demonstration", "feedback")) -> int:
        """Tokens of a teacher prompt before anything is inserted.  Raises UserError when too little is left for it."""
        empty = dict.fromkeys(names, "")
        frame = len(self._teacher_chat(task, empty))
        marks = len(names) * (len(self.tokenizer.encode(CUT_MARK, add_special_tokens=False)) + 8)
        if frame + marks > self.settings.max_reprompt_tokens:
            raise UserError(
                f"Task {task.id!r} leaves no room for feedback: its teacher prompt takes {frame} of "
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

    def _teacher_chat(self, task: Task, inserted: dict[str, str]) -> tuple[int, ...]:
        template = self.template
        solution = feedback = ""
        if "demonstration" in inserted:
            solution = template.solution.format(successful_previous_attempt=inserted["demonstration"])
        if "feedback" in inserted:
            feedback = template.feedback.format(feedback_raw=inserted["feedback"])
        question = task.messages[-1]["content"]
        content = template.reprompt.format(prompt=question, solution=solution, feedback=feedback)
        return self._chat(task, content, self._teacher_thinking)

    def _chat(self, task: Task, content: str, thinking: bool | None) -> tuple[int, ...]:
        """The task's conversation with `content` as its last message, generation header included."""
        options = {} if thinking is None else {"enable_thinking": thinking}
        ids = self.tokenizer.apply_chat_template(
            [*task.messages[:-1], {**task.messages[-1], "content": content}],
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
