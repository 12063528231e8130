"""Second sets of weights beside the student: a frozen copy, and one that follows the student as a moving average."""

from __future__ import annotations

from collections.abc import Iterator

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_local_fp32_param

from sdpo.config.sections import ModelSettings
from sdpo.learner.held import Held, shard
from sdpo.learner.model import PolicyModel, load_model
from sdpo.learner.packing import Pack


class Replica:
    """The initial model without an optimiser; sharded by ZeRO-3 when the student is, else a full copy per rank."""

    def __init__(self, settings: ModelSettings, dtype: torch.dtype, device: torch.device, zero3: dict | None) -> None:
        self.sharded = zero3 is not None
        self.policy: PolicyModel = load_model(settings, dtype)
        self.policy.requires_grad_(False).eval()
        if zero3 is None:
            self.policy.to(device)
            self._run = self.policy
        else:
            self._run, *_ = deepspeed.initialize(model=self.policy, config=zero3)

    @torch.no_grad()
    def hidden(self, pack: Pack) -> torch.Tensor:
        return self._run(pack)


class MovingAverage(Replica):
    """θ' ← (1−τ)·θ' + τ·θ, accumulated in fp32 (a bf16 average rounds small steps away)."""

    def __init__(self, settings: ModelSettings, dtype: torch.dtype, device: torch.device, zero3: dict | None) -> None:
        super().__init__(settings, dtype, device, zero3)
        # `.float()` of fp32 weights is the weights themselves: then the average is accumulated in place.
        self.average = {name: self._stored(p).detach().float() for name, p in self.policy.named_parameters()}

    @torch.no_grad()
    def update(self, student: PolicyModel, rate: float) -> None:
        """One step toward the student's fp32 weights.  Collective: every rank calls it."""
        for (name, own), theirs in zip(self.policy.named_parameters(), student.parameters(), strict=True):
            average = self.average[name]
            average.lerp_(self._master(theirs).to(average.device).view_as(average), rate)
            self._store(own, average)

    def held(self, rank: int) -> Iterator[Held]:
        """What this rank holds of the average, for checkpoints; after writing to it: `take_over`."""
        for name, own in self.policy.named_parameters():
            offset, length = shard(own, rank) if self.sharded else (0, own.numel())
            shape = tuple(own.ds_shape if self.sharded else own.shape)
            views = {"average": self.average[name].view(-1)[:length]}
            yield Held(name, shape, offset, views, replicated=not self.sharded)

    @torch.no_grad()
    def take_over(self) -> None:
        """Compute with the average as it is now."""
        for name, own in self.policy.named_parameters():
            self._store(own, self.average[name])

    def _stored(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """What this rank holds of a parameter: all of it, or its ZeRO-3 shard."""
        return parameter.ds_tensor if self.sharded else parameter

    def _store(self, parameter: torch.nn.Parameter, average: torch.Tensor) -> None:
        stored = self._stored(parameter)
        if stored.data_ptr() != average.data_ptr():
            stored.data.copy_(average)

    def _master(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """The student's weight in fp32: its own data when it trains in fp32, else DeepSpeed's master copy."""
        if self.sharded:
            return safe_get_local_fp32_param(parameter)
        if parameter.dtype == torch.float32:
            return parameter.detach()
        return safe_get_full_fp32_param(parameter)
