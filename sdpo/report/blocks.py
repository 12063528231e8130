"""Responses packed for a page: an index that is read at once, and blocks that are unpacked when one is looked at.

A block is gzip of: the length of a JSON header (uint32), the header, and little-endian 32-bit words.  The header has
the block's texts and token texts, each once, and per response where its words are.  Numbers are the tables' own
float32, bit for bit.  `pages/inspect/data.js` reads it.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from sdpo.report.responses import Response, Tokens

BLOCK_RESPONSES = 64
_TEXTS = ("prompt", "response", "feedback", "teacher_prompt")
_VECTORS = ("sampler_log_probs", "log_probs", "teacher_log_probs", "entropy", "teacher_entropy")


class Index:
    """Columns of all responses, in order; texts that repeat are numbers into `tasks` and `verdicts`."""

    def __init__(self) -> None:
        self.tasks: dict[str, int] = {}
        self.verdicts: dict[str, int] = {}
        self.rows: list[tuple[Any, ...]] = []

    NAMES = ("step", "group", "task", "sample", "turn", "outcome", "verdict", "reward", "advantage", "disagreement",
             "length", "kept", "truncated", "version")  # fmt: skip

    def add(self, r: Response) -> None:
        row = r.row
        verdict = row["verdict"] or {"solved": "solved", "failed": "failed"}.get(r.outcome, "not graded")
        task = self.tasks.setdefault(r.task, len(self.tasks))
        number = self.verdicts.setdefault(verdict, len(self.verdicts))
        largest = None if r.tokens is None else _number(r.tokens.disagreement)
        self.rows.append((
            r.step, r.group, task, row["sample"], row["turn"] or 1, r.outcome, number, _number(row["reward"]),
            r.advantage, largest, row["response_tokens"], int(r.tokens is not None),
            int(row["finish_reason"] == "length"), row["policy_version"],
        ))  # fmt: skip

    def json(self) -> str:
        columns = dict(zip(self.NAMES, map(list, zip(*self.rows, strict=True)), strict=True))
        content = {"tasks": list(self.tasks), "verdicts": list(self.verdicts), "block": BLOCK_RESPONSES, **columns}
        return embedded(content)


def packed(responses: Iterable[Response], index: Index) -> Iterator[str]:
    """The blocks, base64, of `BLOCK_RESPONSES` responses each; fills the index on the way."""
    rest = iter(responses)
    while some := list(islice(rest, BLOCK_RESPONSES)):
        for response in some:
            index.add(response)
        yield base64.b64encode(block(some)).decode()


def block(responses: Sequence[Response]) -> bytes:
    texts: dict[str, int] = {}
    spelled: dict[str, int] = {}
    words: list[np.ndarray] = []
    entries, place = [], 0

    def put(values: np.ndarray) -> int:
        nonlocal place
        words.append(values.astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1))
        place += values.size
        return place - values.size

    def number_of(tokens: Iterable[str]) -> np.ndarray:
        return np.array([spelled.setdefault(token, len(spelled)) for token in tokens], np.int32)

    def place_of(tokens: Tokens) -> dict[str, Any]:
        places = {"count": len(tokens.texts), "k": tokens.top_log_probs.shape[1], "texts": put(number_of(tokens.texts))}
        places["top_texts"] = put(number_of(text for each in tokens.top_texts for text in each))
        for name in (*_VECTORS, "top_log_probs", "top_teacher_log_probs"):
            values = getattr(tokens, name)
            places[name] = None if values is None else put(np.asarray(values, np.float32))
        return places

    for r in responses:
        entry = {n: None if r.row[n] is None else texts.setdefault(r.row[n], len(texts)) for n in _TEXTS}
        entries.append(entry | {"tokens": None if r.tokens is None else place_of(r.tokens)})
    header = json.dumps({"texts": list(texts), "tokens": list(spelled), "responses": entries}).encode()
    header += b" " * (-len(header) % 4)  # words begin at a multiple of 4 bytes
    data = struct.pack("<I", len(header)) + header + b"".join(values.tobytes() for values in words)
    return gzip.compress(data, compresslevel=6, mtime=0)


def embedded(content: Any) -> str:
    """JSON for a script element: nothing in it ends the element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
