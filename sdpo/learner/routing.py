"""How the routers of a mixture of experts share out tokens, counted where the experts are given them.

transformers calls the experts of a layer with the tokens and the experts that each of them goes to.  These are the
choices themselves, after whatever a router adds to its logits or leaves out (biases, groups).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn


class Routing:
    """Counts of a model, by layer.  A model without experts has none."""

    def __init__(self, model: nn.Module) -> None:
        self._counts: dict[str, torch.Tensor] = {}
        self._counting = False
        for name, module in model.named_modules():
            if isinstance(getattr(module, "num_experts", None), int):
                module.register_forward_pre_hook(partial(self._count, name), with_kwargs=True)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """The passes within the context are counted; what is computed anew for gradients later is not."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False

    def take(self) -> dict[str, np.ndarray]:
        """Tokens that each expert was given since the last call, int64 [experts] for each layer."""
        counts, self._counts = self._counts, {}
        return {name: each[:-1].cpu().numpy() for name, each in counts.items()}

    @torch.no_grad()
    def _count(self, name: str, experts: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        if not self._counting or [each.is_floating_point() for each in given[:2]] != [True, False]:
            return  # not tokens and their experts: routers know the number of experts, too
        chosen = given[1].flatten().long()
        if name not in self._counts:  # the last entry: "no expert", where a token has fewer than others
            self._counts[name] = torch.zeros(experts.num_experts + 1, dtype=torch.int64, device=chosen.device)
        self._counts[name].index_add_(0, chosen, torch.ones_like(chosen))
