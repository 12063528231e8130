"""Whether what a rank holds is finite: one fused pass over each tensor tells; names are looked for where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad, safe_get_full_optimizer_state

from sdpo.learner.model import PolicyModel
from sdpo.learner.replica import Replica
from sdpo.learner.teacher import Teacher

Tensors = Iterable[torch.Tensor]
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


def all_finite(tensors: Tensors) -> bool:
    """Whether no element is NaN or infinite: then the largest absolute value of all is neither."""
    floats = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    return not floats or bool(torch.nn.utils.get_total_norm(floats, math.inf).isfinite())


def one_or_nan(loss: torch.Tensor, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """1, or NaN where the loss or an output of its passes is not finite.  Nothing waits for the device.

    As a factor of the loss it makes the gradient NaN, so that the step is skipped on every rank, also where a weight
    of 0 or a clip keeps the bad number out of the gradient: what computed it is broken all the same.
    """
    finite = torch.stack([torch.isfinite(value).all() for value in (loss.detach(), *outputs.values())]).all()
    return torch.where(finite, 1.0, math.nan)


class HeldState:
    """What a rank holds of weights, optimiser and moving average; what is sharded, it holds a share of."""

    def __init__(
        self,
        student: PolicyModel,
        optimizer: torch.optim.Optimizer,
        teacher: Teacher | None,
        reference: Replica | None,
        device: torch.device,
    ) -> None:
        self.student, self.optimizer, self.device = student, optimizer, device
        self.average = None if teacher is None else teacher.average
        self.replicas = {"reference": reference}
        if teacher is not None:
            self.replicas |= {"moving average": teacher.average, "initial policy": teacher.initial}

    def weights_are_finite(self) -> bool:
        """Of this rank's share of the student."""
        return all_finite(weight for _, weight in self._weights())

    @torch.no_grad()
    def first_not_finite(self) -> str | None:
        """The first tensor that is not, the same on every rank.  Collective."""
        parts: dict[Callable[[], Iterator[tuple[str, torch.Tensor]]], Tensors] = {
            self._weights: (weight for _, weight in self._weights()),
            self._masters: (p for group in self.optimizer.param_groups for p in group["params"]),
            self._moments: (v for state in self.optimizer.state.values() for v in map(torch.as_tensor, state.values())),
            self._averages: (average for _, average in self._averages()),
            self._others: (weight for _, weight in self._others()),
        }
        fine = torch.tensor([all_finite(tensors) for tensors in parts.values()], device=self.device, dtype=torch.int32)
        torch.distributed.all_reduce(fine, torch.distributed.ReduceOp.MIN)
        for named, ok in zip(parts, fine.tolist(), strict=True):
            if not ok:
                return agreed(first_of(named())) or "a part of the optimiser that has no name"
        return None

    def first_bad_gradient(self) -> str | None:
        """Between backward and step; the last layer comes first, as in the backward pass.  Collective."""
        named = list(self.student.model.named_parameters())
        found = ((f"the gradient of {name}", safe_get_full_grad(p)) for name, p in reversed(named))
        return agreed(first_of((name, gradient) for name, gradient in found if gradient is not None))

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.student.model.named_parameters():
            yield f"the weight {name} of the policy", getattr(parameter, "ds_tensor", parameter)
        for name, buffer in self.student.model.named_buffers():
            yield f"the buffer {name} of the policy", buffer

    def _masters(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.student.model.named_parameters():
            if (master := safe_get_full_fp32_param(parameter)) is not None:
                yield f"the optimiser's copy of the weight {name}", master

    def _moments(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.student.model.named_parameters():
            own: Any = self.optimizer.state.get(parameter)  # plain data parallelism; else DeepSpeed has flattened it
            for moment in _MOMENTS:
                found = own[moment] if own else safe_get_full_optimizer_state(parameter, moment)
                if found is not None:
                    yield f"the optimiser's {moment} of the weight {name}", found

    def _averages(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, average in ({} if self.average is None else self.average.average).items():
            yield f"the teacher's average of the weight {name.removeprefix('model.')}", average

    def _others(self) -> Iterator[tuple[str, torch.Tensor]]:
        for kind, replica in self.replicas.items():
            for name, parameter in [] if replica is None else replica.policy.model.named_parameters():
                yield f"the weight {name} of the {kind}", getattr(parameter, "ds_tensor", parameter)


def first_of(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first that is not finite, and how much of it; the iterable is used up, since it may be collective."""
    found = None
    for name, tensor in named:
        if found is None and not all_finite([tensor]):
            bad = int((~torch.isfinite(tensor)).sum())
            found = f"{name} ({bad:,} of {tensor.numel():,} values are NaN or infinite)"
    return found


def agreed(name: str | None) -> str | None:
    """The first name that a rank has found.  Collective."""
    names: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(names, name)
    return next(filter(None, names), None)
