"""Rows with what a teacher of its own says of them, and what it will be asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sdpo.algorithms.base import LossPlan
from sdpo.learner.rows import Row
from sdpo.learner.teacher_pool import Pair, TeacherPool
from sdpo.types import Sample


class Answers:
    """What was foreseen is there already; the rest is asked for when an update needs it."""

    def __init__(self, pool: TeacherPool, plan: LossPlan) -> None:
        self.pool = pool
        self.waited = 0.0  # seconds, since it was last set to 0
        self._blends = plan.distillation is not None and plan.distillation.blend is not None

    async def given(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with references to what the teacher says of those that have a context."""
        began = time.monotonic()
        told = [row for row in rows if row.teacher_prompt_ids is not None]
        await self.pool.ask(pair for row in told for pair in self._pairs(row.teacher_prompt_ids, row))
        self.waited += time.monotonic() - began
        return [self._given(row) for row in rows]

    def foreseen(self, samples: Sequence[Sample]) -> list[Pair]:
        """What it will be asked where these are learned from."""
        return [
            pair
            for sample in samples
            if sample.teacher is not None
            for prompt in (sample.teacher.prompt_ids, *sample.teacher.contrasts)
            for pair in self._pairs(prompt, sample)
        ]

    def _given(self, row: Row) -> Row:
        if row.teacher_prompt_ids is None:
            return row
        told, *untold = [self.pool.answer(*pair) for pair in self._pairs(row.teacher_prompt_ids, row)]
        return replace(row, told=told, untold=untold[0] if untold else None)

    def _pairs(self, prompt: Any, of: Row | Sample) -> list[Pair]:
        """The response behind a prompt of the teacher's, and behind the student's where the two are blended."""
        prompts = (prompt, of.prompt_ids) if self._blends else (prompt,)
        return [(np.asarray(each, np.int64), np.asarray(of.response_ids, np.int64)) for each in prompts]
