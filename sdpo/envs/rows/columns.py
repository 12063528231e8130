"""A row as a task: which column is the question, what is right, and what else it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sdpo.config.sections import ColumnSettings
from sdpo.envs.rows.files import BadRow, Row
from sdpo.types import Message, Task

# What a column is called where data.columns does not say.
USUAL: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "messages", "question"),
    "answer": ("answer",),
    "solution": ("solution",),
    "id": ("id",),
    "difficulty": ("difficulty",),
    "split": ("split",),
}
ROLES = ("system", "user", "assistant", "tool")
TRAINING, HELD_OUT = ("train", "training"), ("heldout", "held_out", "test", "validation", "evaluation", "dev")
_ABSENT = object()


def cell(row: Row, columns: ColumnSettings, what: str) -> Any:
    """The value of the column that `data.columns` names for `what`, or of the usual one; None where there is none.

    Raises BadRow where a column that was named is missing.
    """
    name = getattr(columns, what)
    if name is not None:
        if (value := _reach(row, name)) is _ABSENT:
            raise BadRow(f"column {name} (data.columns.{what}) is missing; there are {', '.join(row) or 'none'}")
        return value
    return next((row[name] for name in USUAL[what] if row.get(name) is not None), None)


def needed(row: Row, columns: ColumnSettings, what: str) -> Any:
    """The same, for a column without which a row is of no use.  Raises BadRow where it is missing or null."""
    value = cell(row, columns, what)
    if value is None:
        named = getattr(columns, what)
        reason = f"column {named} is null" if named else f"there is no column {' or '.join(USUAL[what])}"
        raise BadRow(f"{reason}; name the right one of {', '.join(row) or 'none'} in data.columns.{what}")
    return value


def make_task(row: Row, columns: ColumnSettings) -> Task:
    """The task of a row: `content` is the row itself, `columns` its texts.  Its id is empty where the row has none.

    Where the messages end with the assistant's, that one is the reference solution.  Raises BadRow.
    """
    messages, closing = read_messages(needed(row, columns, "prompt"))
    solution, answer = cell(row, columns, "solution"), cell(row, columns, "answer")
    texts = {key: value for key, value in row.items() if isinstance(value, str)}
    return Task(
        id=_text(cell(row, columns, "id")) or "",
        messages=messages,
        content=row,
        solution=next((text for value in (solution, closing, answer) if (text := _text(value)) is not None), None),
        columns=texts,
        difficulty=_text(cell(row, columns, "difficulty")) or "",
    )


def held_out_mark(row: Row, columns: ColumnSettings) -> bool:
    """What a row says itself, for data.problem_split=marked.  Raises BadRow."""
    mark = needed(row, columns, "split")
    if mark not in (*TRAINING, *HELD_OUT):
        raise BadRow(f"its split is {mark!r:.40}, neither {TRAINING[0]} nor one of {', '.join(HELD_OUT)}")
    return mark in HELD_OUT


def read_messages(value: Any) -> tuple[tuple[Message, ...], str | None]:
    """A prompt as messages, and the assistant's last message where they end with one.  Raises BadRow."""
    if isinstance(value, str):
        if not value.strip():
            raise BadRow("its prompt is empty")
        return ({"role": "user", "content": _whole(value)},), None
    if not isinstance(value, list | tuple) or not value:
        raise BadRow(f"its prompt is a {type(value).__name__}, not a text or a list of messages")
    messages = [_message(number, item) for number, item in enumerate(value, start=1)]
    closing = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise BadRow("its messages do not ask anything: none of the user's stands at their end")
    return tuple(messages), closing


def _message(number: int, item: Any) -> dict[str, str]:
    if not isinstance(item, Mapping):
        raise BadRow(f"message {number} is a {type(item).__name__}, not an object with role and content")
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise BadRow(f"the role of message {number} is {role!r:.40}, not one of {', '.join(ROLES)}")
    if isinstance(content, Sequence) and not isinstance(content, str):  # parts, as the APIs of vision models have them
        parts = [p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str)]
        content = "".join(parts) if len(parts) == len(content) else None
    if not isinstance(content, str):
        raise BadRow(f"the content of message {number} is not text")
    return {"role": role, "content": _whole(content)}


def _whole(text: str) -> str:
    """The text, if tokenizers and files take it.  Raises BadRow for half characters (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"character {error.start + 1} of its prompt is half a character (a lone surrogate)") from None
    return text


def _reach(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    head, _, rest = name.partition(".")
    inner = row.get(head)
    return _reach(inner, rest) if rest and isinstance(inner, Mapping) else _ABSENT


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | int | float) else None
