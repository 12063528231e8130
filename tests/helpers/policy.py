"""A policy whose answers are written by hand, in the place of engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from sdpo.rollout.requests import Sampling
from sdpo.types import Turn, VersionSpan

Answer = Callable[[str, int], Awaitable[str]]


class ScriptedPolicy:
    """`answer(prompt, i)` is the text of response i to a prompt; it may take its time.  Ends with no end token.

    version: of the weights, as text of the prompt → number.
    """

    def __init__(self, tokenizer: Any, answer: Answer, version: Callable[[str], int] = lambda prompt: 1) -> None:
        self.tokenizer, self.answer, self.version = tokenizer, answer, version
        self.asked: list[tuple[int, Sampling, int]] = []  # n, sampling, seed of every call
        self.engines: list[int | None] = []  # that a call was meant for

    def generate(
        self, prompt_ids: Sequence[int], n: int, sampling: Sampling, seed: int, engine: int | None = None, slot: int = 0
    ) -> list[asyncio.Future[Turn]]:
        self.asked.append((n, sampling, seed))
        self.engines.append(engine)
        taken = len(self.asked) if engine is None else engine  # the first turns of every group come from another one
        return [asyncio.ensure_future(self._respond(tuple(prompt_ids), i, sampling, taken)) for i in range(n)]

    async def _respond(self, prompt_ids: tuple[int, ...], index: int, sampling: Sampling, engine: int) -> Turn:
        prompt = self.tokenizer.decode(prompt_ids)
        ids = self.tokenizer.encode(await self.answer(prompt, index), add_special_tokens=False)
        kept = tuple(ids[: sampling.max_tokens])
        return Turn(
            prompt_ids=prompt_ids,
            response_ids=kept,
            sampler_log_probs=np.zeros(len(kept), np.float32),
            finish_reason="stop" if len(kept) == len(ids) else "length",
            versions=(VersionSpan(self.version(prompt), 0, len(kept)),),
            engine=engine,
        )
