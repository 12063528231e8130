"""Second sets of weights beside the student: a frozen copy, and one that follows the student as a moving average.

Of a whole model they are a model of their own.  Of an adapter they are its weights alone, which take the place of the
student's for a pass: the base is the same.  So are those of a teacher that is computed elsewhere, adapter or not: here
they are kept and sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_local_fp32_param
from torch import nn

from sdpo.config.sections import ModelSettings
from sdpo.learner.held import Held, shard
from sdpo.learner.model import PolicyModel, load_model
from sdpo.learner.packing import Pack


def stored(parameter: nn.Parameter) -> torch.Tensor:
    """What this rank holds of a parameter: all of it, or its ZeRO-3 shard."""
    return getattr(parameter, "ds_tensor", parameter)


def master(parameter: nn.Parameter) -> torch.Tensor:
    """The same of a trained parameter in fp32: its own data when it trains in fp32, else DeepSpeed's master copy."""
    if hasattr(parameter, "ds_tensor"):
        return safe_get_local_fp32_param(parameter)
    if parameter.dtype == torch.float32:
        return parameter.detach()
    return safe_get_full_fp32_param(parameter)


class Replica:
    """The initial model without an optimiser; sharded by ZeRO-3 when the student is, else a full copy per rank."""

    def __init__(
        self, settings: ModelSettings, dtype: torch.dtype, device: torch.device, zero3: dict | None, packs: bool = True
    ) -> None:
        self.policy: PolicyModel = load_model(settings, dtype, packs=packs)
        self.policy.requires_grad_(False).eval()
        self._run: Any = self.policy
        if zero3 is None:
            self.policy.to(device)
        else:
            self._run, *_ = deepspeed.initialize(model=self.policy, config=zero3)

    @torch.no_grad()
    def hidden(self, pack: Pack) -> torch.Tensor:
        return self._run(pack)

    @contextmanager
    def in_place(self) -> Iterator[PolicyModel]:
        """Within the context: a model with these weights."""
        yield self.policy

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What this rank holds of them."""
        return ((name, stored(p)) for name, p in self.policy.model.named_parameters())

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it keeps on this rank."""
        return map(stored, self.policy.parameters())

    def _own(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.policy.named_parameters()


class AdapterReplica:
    """What the student trains, as it is now, on the student's base.  `run`: a pass of the student, without gradient."""

    def __init__(self, student: PolicyModel, run: Callable[[Pack], torch.Tensor]) -> None:
        self.policy, self._run = student, run
        self._weights = {name: stored(p).detach().clone() for name, p in student.trained()}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What this rank holds of them."""
        return ((name.removeprefix("model."), weights) for name, weights in self._weights.items())

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it keeps on this rank."""
        return iter(self._weights.values())

    @torch.no_grad()
    def hidden(self, pack: Pack) -> torch.Tensor:
        with self.in_place():
            return self._run(pack)

    @contextmanager
    def in_place(self) -> Iterator[PolicyModel]:
        """Within the context the student computes with these weights; afterwards its own are back, bit for bit.

        Values change places, not layers: ZeRO-3 expects the same layers in every pass.
        """
        students = {name: stored(p).data for name, p in self.policy.trained()}
        kept = {name: weights.clone() for name, weights in students.items()}
        try:
            for name, weights in students.items():
                weights.copy_(self._weights[name])
            yield self.policy
        finally:
            for name, weights in students.items():
                weights.copy_(kept[name])

    def _own(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.policy.trained()


class _Average:
    """θ' ← (1−τ)·θ' + τ·θ, accumulated in fp32 (a bf16 average rounds small steps away).

    `take_over`, of the two kinds below, makes a pass compute with the average as it is now.
    """

    average: dict[str, torch.Tensor]

    @torch.no_grad()
    def update(self, student: PolicyModel, rate: float) -> None:
        """One step toward the student's fp32 weights.  Collective: every rank calls it."""
        for name, theirs in student.trained():
            average = self.average[name]
            average.lerp_(master(theirs).to(average.device).view_as(average), rate)
        self.take_over()

    @torch.no_grad()
    def full(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights that a pass computes with, in full.  A collective of all ranks under ZeRO-3."""
        for name, own in self._own():
            rounded = self.average[name].to(stored(own))
            if not hasattr(own, "ds_tensor"):
                yield name, rounded.view(own.shape)
                continue
            shards = [torch.empty_like(rounded) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(shards, rounded.contiguous())
            yield name, torch.cat(shards)[: own.ds_numel].view(own.ds_shape)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it keeps on this rank."""
        return chain(super().tensors(), self.average.values())

    def held(self, rank: int) -> Iterator[Held]:
        """What this rank holds of the average, for checkpoints; after writing to it: `take_over`."""
        for name, own in self._own():
            sharded = hasattr(own, "ds_tensor")
            offset, length = shard(own, rank) if sharded else (0, own.numel())
            shape = tuple(own.ds_shape if sharded else own.shape)
            yield Held(name, shape, offset, {"average": self.average[name].view(-1)[:length]}, replicated=not sharded)


class MovingAverage(_Average, Replica):
    """Of a whole model."""

    def __init__(
        self, settings: ModelSettings, dtype: torch.dtype, device: torch.device, zero3: dict | None, packs: bool = True
    ) -> None:
        super().__init__(settings, dtype, device, zero3, packs)
        # `.float()` of fp32 weights is the weights themselves: then the average is accumulated in place.
        self.average = {name: stored(p).detach().float() for name, p in self._own()}

    @torch.no_grad()
    def take_over(self) -> None:
        for name, own in self._own():
            if stored(own).data_ptr() != self.average[name].data_ptr():
                stored(own).data.copy_(self.average[name])


class AdapterAverage(_Average, AdapterReplica):
    """Of what the student trains."""

    def __init__(self, student: PolicyModel, run: Callable[[Pack], torch.Tensor]) -> None:
        super().__init__(student, run)
        self._weights = self.average = {name: weights.float() for name, weights in self._weights.items()}

    def take_over(self) -> None:
        self._weights = self.average  # rounded where they take the student's place
