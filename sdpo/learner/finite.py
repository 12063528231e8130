"""Whether what a rank holds is finite: one fused pass over each tensor tells; names are looked for where it is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from sdpo.learner.held import MOMENTS, WEIGHT, OptimizedWeights
from sdpo.learner.model import PolicyModel
from sdpo.learner.replica import Replica, stored
from sdpo.learner.teacher import Teacher

_BATCH_BYTES = 2**28


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no element is NaN or infinite.

    Then the sum of their squares is neither, which a CPU has nine times as fast as the largest of them; where the sum
    overflows, that one decides.
    """
    floats = (t.detach() for t in tensors if t.is_floating_point() and t.numel())
    return all(
        any(torch.nn.utils.get_total_norm(batch, order).isfinite() for order in (2.0, math.inf))
        for batch in _batches(floats)
    )


def _batches(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Not all at once: of a shard that is on the host, DeepSpeed gives a copy on the GPU."""
    batch, size = [], 0
    for tensor in tensors:
        batch.append(tensor)
        size += tensor.nbytes
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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
        optimized: OptimizedWeights,
        teacher: Teacher | None,
        reference: Replica | None,
        device: torch.device,
    ) -> None:
        self.student, self.optimized, self.device = student, optimized, device
        self.average = None if teacher is None else teacher.average
        self.replicas = {"reference": reference}
        if teacher is not None:
            self.replicas |= {"moving average": teacher.average, "initial policy": teacher.initial}

    def weights_are_finite(self) -> bool:
        """Of this rank's share of what the optimiser has moved."""
        return all_finite(stored(p) for _, p in self.student.optimised())

    @torch.no_grad()
    def first_not_finite(self) -> str | None:
        """The first tensor that is not, the same on every rank.  Collective."""
        masters, moments = partial(self._optimized, WEIGHT), partial(self._optimized, *MOMENTS)
        parts = self._weights, masters, moments, self._averages, self._others
        found = [all_finite(tensor for _, tensor in part()) for part in parts]
        fine = torch.tensor(found, device=self.device, dtype=torch.int32)
        torch.distributed.all_reduce(fine, torch.distributed.ReduceOp.MIN)
        return next((agreed(first_of(part())) for part, ok in zip(parts, fine.tolist(), strict=True) if not ok), None)

    @contextmanager
    def watched_gradients(self) -> Iterator[dict[str, str | None]]:
        """What is not finite in gradients of this rank's backward passes within, by parameter; the last layer first.

        Seen as autograd hands them on: DeepSpeed keeps them in other places for every stage, some for its step alone.
        """
        named = self.student.named_parameters()
        parameters = dict(reversed([(name.removeprefix("model."), p) for name, p in named]))
        found: dict[str, str | None] = dict.fromkeys(parameters)

        def watch(name: str, gradient: torch.Tensor) -> None:
            found[name] = found[name] or first_of([(f"the gradient of {name}", gradient)])

        hooks = [p.register_hook(partial(watch, name)) for name, p in parameters.items() if p.requires_grad]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.student.model.named_parameters():
            yield f"the weight {name} of the policy", stored(parameter)
        for name, buffer in self.student.model.named_buffers():
            yield f"the buffer {name} of the policy", buffer

    def _optimized(self, *kinds: str) -> Iterator[tuple[str, torch.Tensor]]:
        for held in self.optimized.held():
            for kind in (kind for kind in kinds if kind in held.views):
                what = "copy" if kind == WEIGHT else kind
                yield f"the optimiser's {what} of the weight {held.name.removeprefix('model.')}", held.views[kind]

    def _averages(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, average in ({} if self.average is None else self.average.average).items():
            yield f"the teacher's average of the weight {name.removeprefix('model.')}", average

    def _others(self) -> Iterator[tuple[str, torch.Tensor]]:
        for kind, replica in self.replicas.items():
            for name, weights in [] if replica is None else replica.weights():
                yield f"the weight {name} of the {kind}", weights


def first_of(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first that is not finite, and how much of it."""
    for name, tensor in named:
        if not all_finite([tensor]):
            bad = int((~torch.isfinite(tensor)).sum())
            return f"{name} ({bad:,} of {tensor.numel():,} values are NaN or infinite)"
    return None


def agreed(name: str | None) -> str | None:
    """The first name that a rank has found.  Collective."""
    names: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(names, name)
    return next(filter(None, names), None)
