"""From a task to the student's prompt, and from what happened to the teacher's prompt.

The teacher sees the same chat template and system message as the student (and its thinking mode, unless the recipe
gives it its own), with a demonstration and/or feedback behind the question (arXiv 2601.20802 §3 and its released
templates; the texts are in `templates`, where they come from in `sources`).  Everything that is inserted is cut to its
token budget *before* it is put into the template, so that neither the question nor the instruction nor the generation
header can be cut; each cut is counted.

Nor can anything that is inserted end a turn: it is broken up where it would (`inserted_text`), and the finished
prompt holds as many turn tokens as one with harmless text in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdpo.config.sections import ContextSettings
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.inserted_text import Neutraliser
from sdpo.prompts.sources import demonstrations, environment_feedback
from sdpo.prompts.templates import TEMPLATES
from sdpo.types import Group, Hint, Message, Task

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
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError("The model's tokenizer has no chat template; give a model folder with chat_template.jinja.")
        own = self.settings.teacher_thinking
        self.chat = ChatFormat(self.tokenizer, self.thinking)
        self._teacher_chat = self.chat if own is None else ChatFormat(self.tokenizer, own)
        self._safe = Neutraliser(self.chat, also=[tag for pair in self.chat.thinking_tags for tag in pair])

    def prompt(self, task: Task) -> tuple[int, ...]:
        """The student's prompt, generation header included.  Raises UserError when it is longer than the budget."""
        ids = self._checked(task, self.chat, {})
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
            demonstration = self._clean(demonstration, sampled=self.settings.demonstration == "random") or None
        wanted = self.settings.feedback == "always" or (self.settings.feedback == "fallback" and demonstration is None)
        feedback = environment_feedback(group, index, rng) if wanted else None
        return Hint(demonstration, feedback) if demonstration or feedback else None

    def reprompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
        """The teacher's prompt of at most `max_reprompt_tokens` tokens, generation header included."""
        texts = {"demonstration": hint.demonstration, "feedback": hint.feedback}
        inserted = {name: self._safe.text(text) for name, text in texts.items() if text}
        ids, cut = self._fitted(task, inserted)
        self.counts["special_tokens_neutralised"] += any(text != texts[name] for name, text in inserted.items())
        self.counts.update(f"{name}_cut" for name in cut)
        return ids

    def _fitted(self, task: Task, inserted: dict[str, str]) -> tuple[tuple[int, ...], set[str]]:
        """The teacher's prompt within its budget, and which of the texts were cut for it."""
        budget = self.settings.max_reprompt_tokens
        ids = self._checked(task, self._teacher_chat, inserted)
        if len(ids) <= budget:
            return ids, set()
        room = budget - self.check_room(task, tuple(inserted))
        # Cut to the budget, then a little more for as long as token merges at the seams make the whole too long.
        while room > 0:
            shorter = self._cut(inserted, room)
            ids = self._checked(task, self._teacher_chat, shorter)
            if len(ids) <= budget:
                return ids, {name for name, text in shorter.items() if text != inserted[name]}
            room -= max(1, len(ids) - budget)
        raise AssertionError("check_room leaves room for the marks of a cut")

    def check_room(self, task: Task, names: tuple[str, ...] = ("demonstration", "feedback")) -> int:
        """Tokens of a teacher prompt before anything is inserted.  Raises UserError when too little is left for it."""
        empty = dict.fromkeys(names, "")
        frame = len(self._teacher_chat.prompt(self._messages(task, self._statement, empty)))
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
                kept = self.tokenizer.decode(ids[: max(0, shares[name] - mark)], clean_up_tokenization_spaces=False)
                result[name] = self._safe.text(kept) + CUT_MARK
        return result

    def _statement(self, text: str) -> str:
        return text if self.settings.trust_statements else self._safe.text(text)

    def is_neutralised(self, task: Task) -> bool:
        """Whether something in the task's own messages is broken up."""
        return any(self._statement(message["content"]) != message["content"] for message in task.messages)

    def _messages(self, task: Task, safe: Callable[[str], str], inserted: dict[str, str]) -> list[Message]:
        """The task's conversation; the student's without `inserted`, else what the teacher reads."""
        messages = [{**message, "content": safe(message["content"])} for message in task.messages]
        if inserted:
            messages[-1]["content"] = self._reprompt_text(messages[-1]["content"], inserted)
        return messages

    def _reprompt_text(self, question: str, inserted: dict[str, str]) -> str:
        template = self.template
        solution = feedback = ""
        if "demonstration" in inserted:
            solution = template.solution.format(successful_previous_attempt=inserted["demonstration"])
        if "feedback" in inserted:
            feedback = template.feedback.format(feedback_raw=inserted["feedback"])
        return template.reprompt.format(prompt=question, solution=solution, feedback=feedback)

    def _checked(self, task: Task, chat: ChatFormat, inserted: dict[str, str]) -> tuple[int, ...]:
        """The prompt of a chat, with as many turn tokens as one that has a harmless word for every text in it.

        Without `inserted` it is the student's.  Each text is safe by itself; together with what stands beside it, it
        may still make a token, so it moves away from its neighbours, and an inserted one gives way altogether.
        """

        def prompt(statement: Callable[[str], str], insert: Callable[[str], str]) -> tuple[int, ...]:
            texts = {name: insert(text) for name, text in inserted.items()}
            return chat.prompt(self._messages(task, statement, texts))

        def word(text: str) -> str:
            return self._safe.placeholder

        trusted = self.settings.trust_statements
        wanted = self._safe.count(prompt(str if trusted else word, word))
        for statement, insert in ((_as_it_is, _as_it_is), (_apart, _apart), (_as_it_is, _nothing), (_apart, _nothing)):
            ids = prompt(lambda text, change=statement: text if trusted else change(self._statement(text)), insert)
            if self._safe.count(ids) == wanted:
                return ids
        raise UserError(
            f"The messages of task {task.id!r} make special tokens together with the text around them. Remove "
            "these, or set context.trust_statements=true if its data set may use special tokens."
        )

    def _clean(self, demonstration: str, sampled: bool = False) -> str:
        """A demonstration without its thoughts, finished or not.  sampled: it is a response to the student's prompt."""
        if not self.settings.remove_thinking:
            return demonstration.strip() and demonstration
        return self.chat.answer(demonstration, sampled).strip()


def _as_it_is(text: str) -> str:
    return text


def _apart(text: str) -> str:
    return f" {text} "


def _nothing(text: str) -> str:
    return ""
