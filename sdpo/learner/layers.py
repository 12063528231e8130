"""Layer-wise distillation: hidden states between the student's layers, projected, against those of the teacher's.

Of a response token, over pairs of a layer l of the student and a layer of the teacher, whose states are H' wide:

    mean over pairs of ‖P_l·h_l − h'_l‖² / H'

It is the squared error of FitNets (arXiv 1412.6550, eq. 3) with a matrix P_l as the regressor.  The matrices are
learned with the student and belong to no policy: they are in checkpoints, and go nowhere else.  The hidden states of
layer l are what it hands on to the next layer, counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from sdpo.config.model_files import hidden_size
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.learner.shapes import decoder_layers


class LayerTargets(NamedTuple):
    """What the teacher's layers say of M of the N response tokens of a micro-batch."""

    where: torch.Tensor  # int64 [M]: which tokens
    states: torch.Tensor  # [M, pairs · H']: pair after pair


class LayerProjections(nn.Module):
    """The matrices P, a layer each, so that ZeRO-3 gathers each of them where it is used."""

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        coefficient: float,
        width: int,
        teacher_width: int,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        """`width`: of the student's hidden states."""
        super().__init__()
        self.students, self.coefficient, self.teacher_width = [own for own, _ in pairs], coefficient, teacher_width
        self.matrices = nn.ModuleDict({f"{own}_{theirs}": self._linear(width, dtype) for own, theirs in pairs})
        random = torch.Generator().manual_seed(seed)
        for matrix in self.matrices.values():
            # Where the widths differ, as long on average as what is projected.
            first = torch.eye(width) if width == teacher_width else self._normal(width, random)
            matrix.weight = nn.Parameter(first.to(dtype))

    def _linear(self, width: int, dtype: torch.dtype) -> nn.Linear:
        return nn.Linear(width, self.teacher_width, bias=False, dtype=dtype, device="meta")

    def _normal(self, width: int, random: torch.Generator) -> torch.Tensor:
        return torch.randn(self.teacher_width, width, generator=random) / width**0.5

    @classmethod
    def of(cls, recipe: Recipe, dtype: torch.dtype) -> LayerProjections | None:
        """None: the recipe compares no layers."""
        if recipe.distillation is None or recipe.distillation.layers is None:
            return None
        settings = recipe.distillation.layers
        widths = hidden_size(recipe), hidden_size(recipe.of_teacher())
        return cls(settings.pairs, settings.coefficient, *widths, dtype, recipe.seed)

    def forward(
        self, between: Sequence[torch.Tensor], targets: LayerTargets, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(share of the loss, the loss of every token [N], 0 for those that the teacher was not asked).

        between: of every pair the student's hidden states [N, H]; weight: of a token in the distillation stream, [N].
        Where nothing was asked, gradients are there and 0: every rank sums them up.
        """
        theirs = targets.states.split(self.teacher_width, dim=-1)
        losses = weight.new_zeros(len(targets.where))
        for matrix, own, wanted in zip(self.matrices.values(), between, theirs, strict=True):
            projected = matrix(own.index_select(0, targets.where))
            losses = losses + (projected.float() - wanted.float()).square().mean(-1) / len(self.matrices)
        everywhere = weight.new_zeros(len(weight)).index_copy(0, targets.where, losses.detach())
        return self.coefficient * (weight.index_select(0, targets.where) * losses).sum(), everywhere


def chosen_layers(model: nn.Module, numbers: Sequence[int]) -> list[nn.Module]:
    """The decoder layers of these numbers, counted from 1.  Raises UserError where layers are not found."""
    layers = decoder_layers(model, model.config)
    if numbers and not layers:
        raise UserError(
            f"The layers of {model.config.model_type} are not found, so their hidden states cannot be compared; remove "
            "distillation.layers."
        )
    return [layers[number - 1] for number in numbers]


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """Hidden states [1, T, H] that each of the layers hands on in a pass within the context.

    Nothing but a reference is kept while a layer runs: what is computed there would be computed anew for gradients.
    """
    found: list[Any] = [None] * len(layers)

    def keep(place: int, _module: nn.Module, _given: Any, output: Any) -> None:
        found[place] = output[0] if isinstance(output, tuple) else output

    hooks = [layer.register_forward_hook(partial(keep, place)) for place, layer in enumerate(layers)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
