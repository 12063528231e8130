"""What a tokenizer and its chat template say about a conversation: found by rendering it, not by a model's name.

* Which tokens build turns, so that no text may hold them: every added token that is marked special, and whatever added
  token the template writes.
* How an assistant's turn ends, what follows it in a conversation, and whether earlier turns stay as they were.
* How a thought is marked, and whether the prompt opens one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sdpo.errors import UserError
from sdpo.prompts.thinking import THINK, Tags, without_thoughts
from sdpo.types import Message

_RULE, _QUESTION, _THOUGHT, _ANSWER = "Be brief.", "What is 1 + 1?", "I add 1 and 1.", "It is 2."
# How other families mark thoughts; a pair counts where the tokenizer or the template knows its opening tag.
_OTHER_TAGS: tuple[Tags, ...] = (
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_TAG = r"<[^<>\s]+>|\[[^\[\]\s]+\]|◁[^◁▷\s]+▷"


class ChatFormat:
    """thinking: `enable_thinking` of the template; None leaves its default."""

    def __init__(self, tokenizer: Any, thinking: bool | None = None) -> None:
        self.tokenizer = tokenizer
        self._options = {} if thinking is None else {"enable_thinking": thinking}

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation that ends with a user's turn, and of the header of the assistant's turn."""
        return tuple(self._applied(self._accepted(messages), True, tokenize=True, return_dict=False))

    def render(self, messages: Sequence[Message], header: bool = True) -> str:
        """A conversation as text; header: and the header of the assistant's turn.  Raises what the template raises."""
        return self._applied(self._accepted(messages), header, tokenize=False)

    def _applied(self, messages: Sequence[Message], header: bool, **options: bool) -> Any:
        given = [dict(message) for message in messages]
        return self.tokenizer.apply_chat_template(given, add_generation_prompt=header, **options, **self._options)

    def _accepted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as the template takes them: a system message it has no place for opens the one after it."""
        first, *rest = messages
        if first["role"] != "system" or not rest or self.takes_system:
            return messages
        return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template writes a system message; some refuse it, or leave it out."""
        try:
            return _RULE in self._applied([{"role": "system", "content": _RULE}, self._asked], True, tokenize=False)
        except Exception:  # each raises what it likes
            return False

    def _text(self, *messages: dict[str, str], header: bool = False) -> str:
        """A conversation as text; empty where the template refuses it (each raises what it likes)."""
        try:
            return self.render(messages, header)
        except Exception:
            return ""

    @cached_property
    def _asked(self) -> dict[str, str]:
        return {"role": "user", "content": _QUESTION}

    @cached_property
    def _prompt_text(self) -> str:
        return self._text(self._asked, header=True)

    @cached_property
    def _header(self) -> str:
        """What follows the question: the end of its turn, and the beginning of the assistant's."""
        return self._prompt_text.rpartition(_QUESTION)[2]

    # ------------------------------------------------------------------------------------------------------ turns

    @cached_property
    def added_tokens(self) -> dict[int, str]:
        """Every token that stands in the tokenizer's table of added tokens, special or not: id → text."""
        return {i: str(token.content) for i, token in getattr(self.tokenizer, "added_tokens_decoder", {}).items()}

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """Tokens that are marked special, in the table or by a name such as eos_token: id → text."""
        table = getattr(self.tokenizer, "added_tokens_decoder", {})
        marked = {i: str(token.content) for i, token in table.items() if token.special}
        named = dict(zip(self.tokenizer.all_special_ids, map(str, self.tokenizer.all_special_tokens), strict=True))
        return marked | named

    @cached_property
    def turn_tokens(self) -> dict[int, str]:
        """Special tokens, and the added tokens of which the template builds turns: id → text."""
        written = set(self.prompt([self._asked])) & set(self.added_tokens)
        return self.special_tokens | {i: self.added_tokens[i] for i in written - self._tokens_of(_QUESTION)}

    def _tokens_of(self, text: str) -> set[int]:
        return set(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def turn_lines(self) -> tuple[str, ...]:
        """The lines that a template without tokens for turns writes around a question ("### Response:")."""
        if not set(self.prompt([self._asked])).isdisjoint(self.turn_tokens):
            return ()
        around = "\n".join(self._prompt_text.rpartition(_QUESTION)[::2]).split("\n")
        return tuple(dict.fromkeys(line.strip() for line in around if line.strip()))

    @cached_property
    def turn_end(self) -> tuple[int, ...]:
        """The tokens that end an assistant's turn, as the template writes them behind its text.

        Up to the first special token: what follows belongs to the next turn.  A template that writes none leaves the
        end to eos_token.  Raises UserError where there is no such token either.
        """
        said = {"role": "assistant", "content": _ANSWER}
        behind = self._text(self._asked, said).rpartition(_ANSWER)[2]
        ids = self.tokenizer.encode(behind, add_special_tokens=False)
        for position, token in enumerate(ids):
            if token in self.special_tokens:
                return tuple(ids[: position + 1])
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "A demonstrated response has to end a turn, but this model's chat template writes no special token "
                "behind an assistant's text, and its tokenizer has no eos_token. Set one in tokenizer_config.json."
            )
        return (self.tokenizer.eos_token_id,)

    # ----------------------------------------------------------------------------------------------- several turns

    def following(self, reply: Sequence[Message]) -> str:
        """What the template writes behind an assistant's answer: the end of its turn, `reply`, the next turn's header.

        Raises UserError where the template takes no such conversation.
        """
        said = {"role": "assistant", "content": _ANSWER}
        try:
            return self.render([self._asked, said, *reply]).split(_ANSWER, 1)[1]
        except Exception as error:
            roles = ", ".join(message["role"] for message in reply)
            raise UserError(
                "The model's chat template does not accept a conversation of several turns, in which "
                f"{roles} follows an assistant's message ({type(error).__name__}: {error}). Set environment.turns=1, "
                "or give the model's folder a chat_template.jinja that takes it."
            ) from error

    def unsaid(self, response_ids: Sequence[int], following: Sequence[int]) -> tuple[int, ...] | None:
        """Of the tokens that follow a response, those that it has not said itself: its end token is often sampled.

        None where it says special tokens that the template would not write there.
        """
        said = len(response_ids)
        while said and response_ids[said - 1] in self._silent:
            said -= 1
        end = tuple(response_ids[said:])
        if not self._silent.isdisjoint(response_ids[:said]) or tuple(following[: len(end)]) != end:
            return None
        return tuple(following[len(end) :])

    def unended(self, response_ids: Sequence[int], following: Sequence[int]) -> tuple[int, ...]:
        """The same for a response that may have ended in a way of its own: the turn's end is left out where it is."""
        end = self.turn_end
        ended = bool(response_ids) and response_ids[-1] == end[-1] and tuple(following[: len(end)]) == end
        return tuple(following[len(end) if ended else 0 :])

    @cached_property
    def rewrites(self) -> str:
        """What the template makes of earlier turns when a conversation goes on; empty: they stay as they were."""
        opens, closes = self.thinking_tags[0]
        thought = f"{opens}{_THOUGHT}{closes}{_ANSWER}"
        probes = {"changes": _ANSWER, "drops or changes the thoughts of": thought, "trims": f" {_ANSWER}\n"}
        for told, said in probes.items():
            whole = self._text(self._asked, {"role": "assistant", "content": said}, self._asked, header=True)
            if whole != self._prompt_text + said + self.following([self._asked]):
                return f"{told} earlier turns"
        return ""

    # --------------------------------------------------------------------------------------------------- thoughts

    @cached_property
    def thinking_tags(self) -> tuple[Tags, ...]:
        """Pairs of texts that open and close a thought: `<think>`, and what tokenizer and template declare."""
        template = self.tokenizer.chat_template
        known = (template if isinstance(template, str) else str(template), *self.added_tokens.values())
        declared = [pair for pair in _OTHER_TAGS if any(pair[0] in text for text in known)]
        found = [pair for key in _REASONING_KEYS if (pair := self._rendered_tags(key)) is not None]
        return tuple(dict.fromkeys((*THINK, *declared, *found)))

    def _rendered_tags(self, key: str) -> Tags | None:
        """What the template writes around the thought of an assistant's message that gives it under `key`."""
        said = {"role": "assistant", "content": _ANSWER}
        rendered = self._text(self._asked, said | {key: _THOUGHT})
        before, found, behind = rendered.partition(_THOUGHT)
        between, answered, _ = behind.partition(_ANSWER)
        opens, closes = re.search(rf"({_TAG})\s*\Z", before), re.match(rf"\s*({_TAG})", between)
        if not (found and answered and opens and closes) or opens[1] == closes[1]:
            return None
        # A tag that stands around questions or answers too marks no thought.
        elsewhere = before[: opens.start()] + between
        return None if opens[1] in elsewhere else (opens[1], closes[1])

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the prompt ends inside a thought, so that a response begins in it."""
        mark = "\0"
        return not without_thoughts(self._header + mark, self.thinking_tags).endswith(mark)

    def answer(self, response: str, sampled: bool = True) -> str:
        """What a response says outside its thoughts.  sampled: behind the prompt, which may have opened one."""
        return without_thoughts(response, self.thinking_tags, opened=sampled and self.opens_thought)

    @cached_property
    def _silent(self) -> frozenset[int]:
        """Special tokens that are no part of a response's text: all but those that thinking tags are made of."""
        tags = "".join(text for pair in self.thinking_tags for text in pair)
        return frozenset(i for i, text in self.special_tokens.items() if text not in tags)

    def decode(self, response_ids: Sequence[int]) -> str:
        """A response as text, without special tokens, but with the tags of its thoughts where those are special."""
        return self.tokenizer.decode([i for i in response_ids if i not in self._silent], skip_special_tokens=False)
