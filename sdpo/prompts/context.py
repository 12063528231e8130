"""From a task to the student's prompt, and from what happened to the teacher's prompt.

The teacher sees the same chat template and system message as the student (and its thinking mode, unless the recipe
gives it its own), with a demonstration and/or feedback behind the question (arXiv 2601.20802 §3 and its released
templates; the texts are in `templates`, where they come from in `sources`).  Everything that is inserted is cut to its
token budget *before* it is put into the template, so that neither the question nor the instruction nor the generation
header can be cut; each cut is counted.

Nor can anything that is inserted end a turn: it is broken up where it would (`inserted_text`), and the finished
prompt holds as many turn tokens as one with harmless text in its place.

After the first turn a prompt is the one before it, the response as it was sampled, and the tokens of what the template
writes behind it: the turn's end, the environment's reply, the next header.  Where the template renders the conversation
in another way (it drops thoughts, say), the prompt is what it renders, unless `context.history` says otherwise.  A
teacher's prompt is built as the student's was, from the same tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sdpo.config.sections import ContextSettings
from sdpo.errors import UserError
from sdpo.prompts.chat_format import ChatFormat
from sdpo.prompts.inserted_text import Neutraliser
from sdpo.prompts.sources import demonstrations, environment_feedback, of_another
from sdpo.prompts.templates import TEMPLATES
from sdpo.types import Group, Hint, Message, Outcome, Rollout, Task, Turn

Change = Callable[[str], str]
CUT_MARK = "\n[... cut]"
# Names in `ContextBuilder.counts`
COUNTED = ("demonstration_cut", "feedback_cut", "reply_cut", "special_tokens_neutralised")


class Told(NamedTuple):
    """A teacher's prompt, and the hint in it."""

    hint: Hint
    prompt_ids: tuple[int, ...]


@dataclass
class ContextBuilder:
    """Builds token prompts with one tokenizer and one template.  `counts` says how often something was cut."""

    tokenizer: Any  # a Hugging Face tokenizer with a chat template
    settings: ContextSettings
    thinking: bool | None = None
    counts: Counter[str] = field(default_factory=Counter)
    batch: Sequence[Group] = ()  # whose demonstrations may be shown to other tasks (`context.demonstration_of`)

    def __post_init__(self) -> None:
        self.template = TEMPLATES[self.settings.template]
        self._demonstration = demonstrations(self.settings.demonstration, self.settings.column)
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError("The model's tokenizer has no chat template; give a model folder with chat_template.jinja.")
        own = self.settings.teacher_thinking
        self.chat = ChatFormat(self.tokenizer, self.thinking)
        self._teacher_chat = self.chat if own is None else ChatFormat(self.tokenizer, own)
        tags = [tag for pair in self.chat.thinking_tags for tag in pair]
        self._safe = Neutraliser(self.chat, also=tags)
        # For what stands for a response: the tags of its thoughts keep their meaning.
        self.safe_response = Neutraliser(
            self.chat, kept=[t for t in self.chat.turn_tokens.values() if t in "".join(tags)]
        )

    def prompt(self, task: Task, turns: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The student's prompt after some turns, generation header included.

        Raises UserError when the first one is longer than the budget.
        """
        if turns:
            reply, cut = self._reply(turns[-1])
            self.counts["reply_cut"] += cut
            if (rest := self._kept(task, turns, reply)) is not None:
                return (*turns[-1].prompt_ids, *turns[-1].response_ids, *rest)
        ids = self._checked(task, self.chat, {}, turns)
        if not turns and len(ids) > self.settings.max_prompt_tokens:
            raise UserError(
                f"The prompt of task {task.id!r} has {len(ids)} tokens, more than context.max_prompt_tokens="
                f"{self.settings.max_prompt_tokens}. Raise that option."
            )
        return ids

    def hint(self, group: Group, index: int, rng: np.random.Generator, turn: int = -1) -> Hint | None:
        """What the teacher is told about a turn of rollout `index` of the group; None when there is nothing to tell.

        The demonstration's source is `context.demonstration`, its task `context.demonstration_of`.  Feedback exists for
        failed responses only; when it is shown is `context.feedback`.
        """
        demonstration = self._demonstrated(group, index, rng)
        wanted = self.settings.feedback == "always" or (self.settings.feedback == "fallback" and demonstration is None)
        feedback = environment_feedback(group.rollouts[index].turns[turn].outcome) if wanted else None
        return Hint(demonstration, feedback) if demonstration or feedback else None

    def _demonstrated(self, group: Group, index: int, rng: np.random.Generator) -> str | None:
        sampled = self.settings.demonstration == "random"
        if self.settings.demonstration_of == "same":
            text = self._demonstration(group, index, rng)
            return None if text is None else self._clean(text, sampled) or None
        found = of_another(self._demonstration, group, self.batch, rng)
        if found is None or not (text := self._clean(found[1], sampled)):
            return None
        return f"{found[0].messages[-1]['content']}\n\n{text}"

    def told(self, group: Group, index: int, rng: np.random.Generator, turn: int) -> Told | None:
        """The hint about a turn of rollout `index` of the group, in the teacher's prompt; None without a hint."""
        hint = self.hint(group, index, rng, turn)
        if hint is None:
            return None
        return Told(hint, self.reprompt(group.task, hint, group.rollouts[index].turns[: turn + 1]))

    def shown(self, rollout: Rollout) -> Hint | None:
        """A hint that shows what a rollout answered in the end, right or wrong, in a demonstration's place."""
        text = self._clean(rollout.last.text, sampled=True)
        return Hint(text, None) if text else None

    def reprompt(self, task: Task, hint: Hint, turns: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The teacher's prompt, generation header included.

        turns: the rollout's, up to the one that the teacher scores; none stand for the first.  The first prompt has at
        most `max_reprompt_tokens` tokens; later ones leave as much room for the hint.
        """
        texts = {"demonstration": hint.demonstration, "feedback": hint.feedback}
        inserted = {name: self._safe.text(text) for name, text in texts.items() if text}
        ids, cut = self._fitted(task, inserted, turns)
        self.counts["special_tokens_neutralised"] += any(text != texts[name] for name, text in inserted.items())
        self.counts.update(f"{name}_cut" for name in cut)
        return ids

    def _fitted(self, task: Task, inserted: dict[str, str], turns: Sequence[Turn]) -> tuple[tuple[int, ...], set[str]]:
        """The teacher's prompt within its budget, and which of the texts were cut for it."""
        budget = self.settings.max_reprompt_tokens
        if len(turns) > 1:
            frame = len(self._told(task, turns, self._teacher_chat, dict.fromkeys(inserted, "")))
            budget += frame - self.check_room(task, tuple(inserted))
        ids = self._told(task, turns, self._teacher_chat, inserted)
        if len(ids) <= budget:
            return ids, set()
        room = self.settings.max_reprompt_tokens - self.check_room(task, tuple(inserted))
        # Cut to the budget, then a little more for as long as token merges at the seams make the whole too long.
        while room > 0:
            shorter = self._cut(inserted, room)
            ids = self._told(task, turns, self._teacher_chat, shorter)
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

    # ----------------------------------------------------------------------------------------------- several turns

    def _told(self, task: Task, turns: Sequence[Turn], chat: ChatFormat, inserted: dict[str, str]) -> tuple[int, ...]:
        """The prompt of the last of `turns` with `inserted` in it, otherwise token by token what the student saw."""
        *earlier, last = turns or (None,)
        if last is None or not earlier or not continues(earlier[-1], last):
            return self._checked(task, chat, inserted, earlier)
        before = earlier[-1]
        reply, _ = self._reply(before)
        if self.settings.hint_at == "turn":
            rest = self._rest(before, chat, reply, inserted)
            return (*before.prompt_ids, *before.response_ids, *rest)
        rest = self._rest(before, chat, reply, {})
        return (*self._told(task, earlier, self.chat, inserted), *before.response_ids, *rest)

    def _kept(self, task: Task, turns: Sequence[Turn], reply: list[dict[str, str]]) -> tuple[int, ...] | None:
        """What follows the last of `turns` where the conversation goes on token by token; None where it cannot."""
        *earlier, last = turns
        if self.settings.history == "template":
            before = self._messages(task, self._statement, {}, earlier)
            said = {"role": "assistant", "content": last.text}
            whole = self.chat.render([*before, said, *reply])
            if whole != self.chat.render(before) + last.text + self.chat.following(reply):
                return None
            if self.chat.unsaid(last.response_ids, self._following(reply)) is None:
                return None
        return self._rest(last, self.chat, reply, {})

    def _rest(
        self, turn: Turn, chat: ChatFormat, reply: list[dict[str, str]], inserted: dict[str, str]
    ) -> tuple[int, ...]:
        """The tokens between a turn and the next response: what ends the turn, `reply`, the header."""

        def following(said: Change, insert: Change) -> tuple[int, ...]:
            messages = _changed(reply, said)
            self._insert(messages, -1, {name: insert(text) for name, text in inserted.items()})
            return self._following(messages, chat)

        ids = self._safest(following) or following(self._word, self._word)  # a run does not end with a teacher's prompt
        return chat.unended(turn.response_ids, ids)

    def _following(self, reply: Sequence[Message], chat: ChatFormat | None = None) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode((chat or self.chat).following(reply), add_special_tokens=False))

    def _reply(self, turn: Turn) -> tuple[list[dict[str, str]], bool]:
        """What the environment replied, harmless and within `max_reply_tokens`, and whether it was cut for that."""
        outcome: Outcome | None = turn.outcome
        assert outcome is not None and outcome.reply
        wanted = self._safe.count(self._following(_changed(outcome.reply, self._word)))
        for change in (_as_it_is, _apart):
            messages = _changed(outcome.reply, lambda text, change=change: change(self._safe.text(text)))
            cut = self._cut_reply(messages)
            if self._safe.count(self._following(messages)) == wanted:
                return messages, cut
        return _changed(outcome.reply, self._word), True

    def _cut_reply(self, messages: list[dict[str, str]]) -> bool:
        """Shortens the longest of the messages until all of them are within their budget.  False: they were."""
        mark, cut = len(self.tokenizer.encode(CUT_MARK, add_special_tokens=False)), False
        while (over := len(self._following(messages)) - self.settings.max_reply_tokens) > 0:
            cut, longest = True, max(messages, key=lambda message: len(message["content"]))
            ids = self.tokenizer.encode(longest["content"].removesuffix(CUT_MARK), add_special_tokens=False)
            if len(ids) <= over + mark:
                raise UserError(
                    f"context.max_reply_tokens={self.settings.max_reply_tokens} leaves no room for the environment's "
                    "reply beside the tokens that end a turn and begin the next one. Raise that option."
                )
            kept = self.tokenizer.decode(ids[: len(ids) - over - mark], clean_up_tokenization_spaces=False)
            longest["content"] = self._safe.text(kept) + CUT_MARK
        return cut

    def check_turns(self) -> str:
        """What should be known before a run in which responses are replied to; may be empty.

        Raises UserError where the chat template takes no such conversation.
        """
        self.chat.following([{"role": "user", "content": self._safe.placeholder}])
        if not self.chat.rewrites:
            return ""
        if self.settings.history == "sampled":
            return f"The chat template {self.chat.rewrites}; context.history=sampled goes on from what was sampled."
        return (
            f"The chat template {self.chat.rewrites}, so a later prompt may not be the conversation before it, and "
            "the learner then computes each by itself; context.history=sampled goes on from what was sampled."
        )

    # ---------------------------------------------------------------------------------------------------- one prompt

    def _messages(
        self, task: Task, safe: Change, inserted: dict[str, str], turns: Sequence[Turn] = ()
    ) -> list[dict[str, str]]:
        """The task's conversation, and `turns` of it; the student's without `inserted`, else what the teacher reads."""
        messages = _changed(task.messages, safe)
        first = len(messages) - 1
        for turn in turns:
            messages.append({"role": "assistant", "content": self.safe_response.text(turn.text)})
            messages += self._reply(turn)[0]
        self._insert(messages, -1 if self.settings.hint_at == "turn" else first, inserted)
        return messages

    def _insert(self, messages: list[dict[str, str]], at: int, inserted: dict[str, str]) -> None:
        if inserted:
            messages[at]["content"] = self._reprompt_text(messages[at]["content"], inserted)

    def _reprompt_text(self, question: str, inserted: dict[str, str]) -> str:
        template = self.template
        solution = feedback = ""
        if "demonstration" in inserted:
            solution = template.solution.format(successful_previous_attempt=inserted["demonstration"])
        if "feedback" in inserted:
            feedback = template.feedback.format(feedback_raw=inserted["feedback"])
        return template.reprompt.format(prompt=question, solution=solution, feedback=feedback)

    def _checked(
        self, task: Task, chat: ChatFormat, inserted: dict[str, str], turns: Sequence[Turn] = ()
    ) -> tuple[int, ...]:
        """The prompt of a chat as its template renders it, `_safest`.  Without `inserted` it is the student's."""
        trusted = self.settings.trust_statements

        def prompt(said: Change, insert: Change) -> tuple[int, ...]:
            texts = {name: insert(text) for name, text in inserted.items()}
            safe = str if trusted else lambda text: said(self._statement(text))
            return chat.prompt(self._messages(task, safe, texts, turns))

        ids = self._safest(prompt)
        if ids is None:
            raise UserError(
                f"The messages of task {task.id!r} form special tokens together with the text around them. Remove "
                "these, or set context.trust_statements=true if its data set may use special tokens."
            )
        return ids

    def _safest(self, made: Callable[[Change, Change], tuple[int, ...]]) -> tuple[int, ...] | None:
        """Tokens with as many turn tokens among them as with a harmless word for every text; None: there are none.

        made: from what becomes of the texts of a conversation, and of those inserted.  Each text is safe by itself;
        together with what stands beside it, it may still make a token, so it moves away from its neighbours, and an
        inserted one gives way altogether.
        """
        wanted = self._safe.count(made(self._word, self._word))
        for said, insert in ((_as_it_is, _as_it_is), (_apart, _apart), (_as_it_is, _nothing), (_apart, _nothing)):
            ids = made(said, insert)
            if self._safe.count(ids) == wanted:
                return ids
        return None

    def _word(self, text: str) -> str:
        return self._safe.placeholder

    def _clean(self, demonstration: str, sampled: bool = False) -> str:
        """A demonstration without its thoughts, finished or not.  sampled: it is a response to the student's prompt."""
        if not self.settings.remove_thinking:
            return demonstration.strip() and demonstration
        return self.chat.answer(demonstration, sampled).strip()


def continues(before: Turn, after: Turn) -> bool:
    """Whether the prompt of a turn is the conversation before it, token by token."""
    said = (*before.prompt_ids, *before.response_ids)
    return after.prompt_ids[: len(said)] == said


def _changed(messages: Sequence[Message], change: Change) -> list[dict[str, str]]:
    return [{**message, "content": change(message["content"])} for message in messages]


def _as_it_is(text: str) -> str:
    return text


def _apart(text: str) -> str:
    return f" {text} "


def _nothing(text: str) -> str:
    return ""
