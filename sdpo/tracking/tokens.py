"""Columns of the rollout tables that say something of every token, null for responses whose tokens were not kept.

Lists have one entry for each of a response's R tokens; those of alternatives have k for each, likeliest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from sdpo.types import Sample, TokenCredit

_NUMBERS = pa.list_(pa.float32())
# Natural logarithms, at the sampling temperature.  The sampler's are null for a dataset's responses, the teacher's
# where no teacher re-scored the response; the alternatives are then the policy's own.
TOKEN_SCHEMA = pa.schema(
    [
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.string())),  # together they are the response, special tokens included
        ("sampler_log_probs", _NUMBERS),
        ("log_probs", _NUMBERS),
        ("teacher_log_probs", _NUMBERS),
        ("entropy", _NUMBERS),
        ("teacher_entropy", _NUMBERS),
        ("top_ids", pa.list_(pa.list_(pa.int32()))),
        ("top_tokens", pa.list_(pa.list_(pa.string()))),
        ("top_log_probs", pa.list_(_NUMBERS)),
        ("top_teacher_log_probs", pa.list_(_NUMBERS)),
    ]
)
BYTES_PER_TOKEN = 100  # of a table, compressed, with five alternatives: what a budget is counted in

Decode = Callable[[Sequence[int]], str]


class TokenTexts:
    """Token ids → texts, each token by itself."""

    def __init__(self, decode: Decode) -> None:
        self.decode = decode
        self.alone = lru_cache(None)(lambda token: decode([token]))

    def of(self, ids: Sequence[int]) -> list[str]:
        """Texts that joined are the decoded response.

        A token that ends within a character gets an empty text, and the one that completes it the character.
        """
        texts = [self.alone(token) for token in ids]
        whole = self.decode(ids)
        if "".join(texts) == whole:
            return texts
        # What a token adds depends on those before it: decode a window that grows, from the last whole character on.
        texts, start, end = [], 0, 0
        for i in range(len(ids)):
            before, now = self.decode(ids[start:end]), self.decode(ids[start : i + 1])
            if now.endswith("\ufffd") and i + 1 < len(ids):
                texts.append("")
                continue
            texts.append(now[len(before) :])
            start, end = end, i + 1
        return texts


def token_columns(sample: Sample, credit: TokenCredit, texts: TokenTexts) -> dict[str, Any]:
    """One row's values for `TOKEN_SCHEMA`."""
    ids = list(sample.response_ids)
    sampled = not np.isnan(sample.sampler_log_probs).all()
    theirs = credit.top_teacher_log_probs
    return {
        "token_ids": ids,
        "tokens": texts.of(ids),
        "sampler_log_probs": sample.sampler_log_probs if sampled else None,
        "log_probs": credit.log_probs,
        "teacher_log_probs": credit.teacher_log_probs,
        "entropy": credit.entropy,
        "teacher_entropy": credit.teacher_entropy,
        "top_ids": list(credit.top_ids),
        "top_tokens": [[texts.alone(token) for token in each] for each in credit.top_ids.tolist()],
        "top_log_probs": list(credit.top_log_probs),
        "top_teacher_log_probs": None if theirs is None else list(theirs),
    }
