"""What is asked of an engine.  Plain data: importing this needs neither Ray nor vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sdpo.errors import PartFailed, UserError

Memory = Literal["weights", "kv_cache"]  # of a GPU, as vLLM names its parts


class EngineError(UserError):
    """An engine cannot serve: it did not start, it died, or it holds half-loaded weights."""


class EngineLost(PartFailed, EngineError):
    """An engine, or vLLM's core behind it, is dead, stopped, or does not answer."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    `top_p` in (0, 1], `top_k` = 0 for all tokens, `max_tokens` counts response tokens including the end token.
    `greedy` ignores the seed and needs temperature 0.  The model's own end tokens (tokenizer and generation_config)
    stop a response.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    greedy: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}; a response needs at least 1 token.")
        if self.greedy and (self.temperature != 0 or self.top_p != 1 or self.top_k != 0):
            raise UserError(
                "Greedy decoding has no temperature, top_p or top_k: leave them at 0, 1 and 0, or set greedy=False."
            )
        if not self.greedy and self.temperature <= 0:
            raise UserError(f"The temperature is {self.temperature}; use a value above 0, or greedy=True.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be in (0, 1].")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; use 0 for all tokens.")

    @classmethod
    def argmax(cls, max_tokens: int) -> Sampling:
        """Greedy decoding."""
        return cls(max_tokens=max_tokens, temperature=0.0, greedy=True)


def response_seed(group_seed: int, index: int) -> int:
    """The seed of response `index` of a group: 63 bits, independent between groups and between responses."""
    words = np.random.SeedSequence([group_seed, index]).generate_state(2, np.uint32)
    return ((int(words[0]) << 32) | int(words[1])) >> 1
