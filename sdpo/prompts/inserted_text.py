"""Text that others wrote, made unable to end a turn or to begin one, and the count of tokens that proves it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sdpo.prompts.chat_format import ChatFormat

_PLACEHOLDERS = ("x", "0", "text", "")


class Neutraliser:
    """Breaks up, in text that is to be inserted into a prompt, what the tokenizer would read as a turn token.

    kept: texts of tokens that keep their meaning.
    """

    def __init__(self, chat: ChatFormat, also: Iterable[str] = (), kept: Iterable[str] = ()) -> None:
        kept = set(kept)
        self._tokenizer: Any = chat.tokenizer
        self._ids = {i for i, text in chat.turn_tokens.items() if text not in kept} - _unknown(chat)
        texts = {t for t in (*chat.turn_tokens.values(), *also, *chat.turn_lines) if t.strip()} - kept
        self._texts = re.compile("|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True)) or r"(?!)")
        self.text = lru_cache(maxsize=1024)(self._text)
        self.placeholder = next(t for t in _PLACEHOLDERS if not self._spans(t))

    def count(self, ids: Iterable[int]) -> Counter[int]:
        """How often each turn token stands among `ids`."""
        return Counter(i for i in ids if i in self._ids)

    def _text(self, text: str) -> str:
        """`text` without turn tokens, by its own tokens: at first a space breaks each of them up.

        A tokenizer may not mind the space, and two halves may make another token.  What is still there is broken by an
        escape of its first character, and what survives that is removed, so this comes to an end.
        """
        for attempt in (_space, _escape):
            spans = self._spans(text)
            text = _replaced(text, spans, attempt)
        while spans := self._spans(text):
            text = _replaced(text, spans, lambda token: "")
        return text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where turn tokens stand in `text`, as it is written and as the tokenizer reads it, which may normalise it."""
        found = [match.span() for match in self._texts.finditer(text)]
        if not found:
            if getattr(self._tokenizer, "is_fast", False):
                read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
                pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
                found = [tuple(span) for i, span in pairs if i in self._ids and span[0] < span[1]]
            elif self.count(self._tokenizer.encode(text, add_special_tokens=False)):
                found = [(0, len(text))]
        return found


def _unknown(chat: ChatFormat) -> set[int]:
    """The token of unknown words, which any text may bring, unless it has another part to play as well."""
    tokenizer = chat.tokenizer
    token = getattr(tokenizer, "unk_token_id", None)
    roles = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    return {token} - roles


def _replaced(text: str, spans: list[tuple[int, int]], replace) -> str:
    for start, end in reversed(spans):
        text = text[:start] + replace(text[start:end]) + text[end:]
    return text


def _space(token: str) -> str:
    inner = token.strip()
    if len(inner) < 2:
        return _escape(token)
    at = token.index(inner) + 1
    return f"{token[:at]} {token[at:]}"


def _escape(token: str) -> str:
    at = len(token) - len(token.lstrip()) if token.strip() else 0
    return f"{token[:at]}\\u{ord(token[at]):04x}{token[at + 1 :]}"
