"""What a rank holds of the parameters and of what its optimiser keeps for them, whatever the ZeRO stage.

Plain data parallelism holds everything on every rank.  ZeRO-1 and ZeRO-2 cut one flat fp32 vector of all parameters
into a piece per rank, ZeRO-3 every parameter by itself.  In each case it comes down to elements [offset, offset +
length) of a flattened parameter, and views of their fp32 weights and of the two moments of AdamW.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state
from torch import nn

from sdpo.learner.model import PolicyModel

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Held:
    """`views`: by kind, this rank's elements from `offset` on, flat and in fp32; to write to them changes the run."""

    name: str
    shape: tuple[int, ...]  # of the whole parameter
    offset: int
    views: dict[str, torch.Tensor]
    replicated: bool = False  # every rank holds the same

    @property
    def length(self) -> int:
        return next(iter(self.views.values())).numel()

    def share(self, rank: int, ranks: int) -> Held:
        """What of it this rank writes: all, or its part of what every rank holds."""
        if not self.replicated:
            return self
        begin, end = self.length * rank // ranks, self.length * (rank + 1) // ranks
        views = {kind: view[begin:end] for kind, view in self.views.items()}
        return Held(self.name, self.shape, self.offset + begin, views)


def shard(parameter: nn.Parameter, rank: int) -> tuple[int, int]:
    """(offset, length) of this rank's ZeRO-3 shard, without the padding at the parameter's end."""
    size, whole = parameter.ds_tensor.ds_numel, parameter.ds_numel
    offset = min(rank * size, whole)
    return offset, min(size, whole - offset)


class OptimizedWeights:
    """The student's trained parameters and their AdamW state within a DeepSpeed engine.

    optimizer: the one that the engine was given.
    """

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, model: PolicyModel, rank: int) -> None:
        self.engine, self.optimizer, self.model, self.rank = engine, optimizer, model, rank
        self.stage: int = engine.zero_optimization_stage()

    def held(self) -> Iterator[Held]:
        """Of every parameter that this rank holds something of.  Moments are there once the optimiser has moved it."""
        for name, parameter in self.model.optimised():
            if self.stage == 3:
                offset, length = shard(parameter, self.rank)
                views = {WEIGHT: safe_get_local_fp32_param(parameter)}
                if self._moved(self._flats()[0]):
                    views |= {kind: safe_get_local_optimizer_state(parameter, kind) for kind in MOMENTS}
                views = {kind: view.detach()[:length] for kind, view in views.items()}
                yield Held(name, tuple(parameter.ds_shape), offset, views)
                continue
            flat, begin, offset, length = parameter, 0, 0, parameter.numel()
            if self.stage:
                if (piece := parameter._hp_mapping) is None:
                    continue
                flat = self.optimizer.param_groups[piece.param_group_index]["params"][0]
                begin, offset = piece.hp_fragment_address.start, piece.lp_fragment_address.start
                length = piece.hp_fragment_address.numel
            views = {WEIGHT: flat.detach()}
            if self._moved(flat):
                views |= {kind: self.optimizer.state[flat][kind] for kind in MOMENTS}
            views = {kind: view.view(-1)[begin : begin + length] for kind, view in views.items()}
            yield Held(name, tuple(parameter.shape), offset, views, replicated=not self.stage)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that the optimiser keeps on this rank.  Without ZeRO, its weights are the model's own."""
        for flat in self._flats():
            yield flat
            if self._moved(flat):
                yield from (self.optimizer.state[flat][kind] for kind in MOMENTS)

    def steps(self) -> dict[str, int]:
        """How often the optimiser has moved each parameter; those that it never moved are left out."""
        named = dict(self.model.optimised())
        if self.stage:  # all of them at once
            flat = self._flats()[0]
            return dict.fromkeys(named, int(self.optimizer.state[flat]["step"])) if self._moved(flat) else {}
        return {name: int(self.optimizer.state[p]["step"]) for name, p in named.items() if self._moved(p)}

    def begin_load(self, steps: Mapping[str, int]) -> None:
        """Make `held` give views that can be written to, with the moments of parameters moved so often."""
        if self.stage == 3:
            self.engine.optimizer.checkpoint_event_prologue()  # what is gathered now would keep its old values
        if self.stage:
            counts = [(flat, max(steps.values(), default=0)) for flat in self._flats()]
        else:
            counts = [(p, steps.get(name, 0)) for name, p in self.model.optimised()]
        for flat, count in counts:
            self.optimizer.state.pop(flat, None)
            if count:
                step = torch.tensor(float(count), dtype=torch.float32, device=flat.device)
                moments = {kind: torch.zeros_like(flat, requires_grad=False) for kind in MOMENTS}
                self.optimizer.state[flat] = {"step": step, **moments}

    @torch.no_grad()
    def finish_load(self) -> None:
        """Bring the weights that the model computes with in line with the fp32 ones.  Collective."""
        if self.stage in (1, 2):
            self.engine.optimizer.update_lp_params()
        if self.stage == 3:
            for _, parameter in self.model.optimised():
                length = shard(parameter, self.rank)[1]
                parameter.ds_tensor.data[:length].copy_(safe_get_local_fp32_param(parameter)[:length])
            self.engine.optimizer.checkpoint_event_epilogue()

    def _flats(self) -> list[torch.Tensor]:
        """The tensors that the optimiser steps on, under ZeRO."""
        if self.stage == 3:
            return self.engine.optimizer.fp32_partitioned_groups_flat
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _moved(self, flat: torch.Tensor) -> bool:
        return bool(self.optimizer.state.get(flat))
