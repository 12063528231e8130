"""Parameters that ZeRO-3 has sharded, in full for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def gathered(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """All of these parameters in full on every rank, where ZeRO-3 has sharded them; read only."""
    with ExitStack() as stack:
        sharded = [p for p in parameters if hasattr(p, "ds_id")]
        if sharded:
            import deepspeed  # takes seconds, and only a learner needs it

            stack.enter_context(deepspeed.zero.GatheredParameters(sharded, modifier_rank=None))
        yield
