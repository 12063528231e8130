"""What a model does to its logits after the projection, measured: a factor, a soft cap, or something to be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from sdpo.errors import UserError

_REMEDY = "Use an architecture without it (Qwen, Llama, OLMo, Mistral, …)."

_TOKENS, _ENTRIES = 9, 32

# Largest deviation of a logit from the fit, relative to its token's largest; rounding in fp32 makes some 1e-6.
TOLERANCE = 1e-4


class Transformation(NamedTuple):
    """z, the projection with its bias, becomes scale·z, or softcap·tanh(scale·z / softcap)."""

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return self.scale * z if self.softcap is None else self.softcap * torch.tanh(self.scale * z / self.softcap)


def measured_transformation(model: nn.Module) -> Transformation:
    """From `hidden @ weight.T + bias` to the logits of a causal language model.

    The body is replaced by random hidden states of all sizes, and output matrix and bias by small random ones, so
    neither weights nor a device matter.  A factor is what Granite and Cohere have, a soft cap Gemma 2.

    Raises UserError, with both numbers, where logits are neither.
    """
    kind, old = model.config.model_type, model.get_output_embeddings()
    if not isinstance(old, nn.Linear):
        raise UserError(f"{kind} has no linear output projection, which the chunked losses need. {_REMEDY}")
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(old.in_features, _ENTRIES, bias=old.bias is not None, device="cpu", dtype=torch.float32)
    for parameter in head.parameters():
        nn.init.normal_(parameter.requires_grad_(False), generator=generator)
    sizes = torch.logspace(-1, 4, _TOKENS)[:, None]  # logits that no cap bends, and some that any cap flattens
    hidden = torch.randn(_TOKENS, old.in_features, generator=generator) * sizes / old.in_features**0.5
    projected = hidden.double() @ head.weight.double().t()
    if head.bias is not None:
        projected += head.bias.double()
    try:
        with _replaced(model, head, hidden[None]):
            ids = torch.zeros(1, _TOKENS, dtype=torch.int64)
            found = model(input_ids=ids, use_cache=False).logits[0].to("cpu", torch.float64)
        if found.shape != projected.shape:
            raise ValueError(f"{tuple(found.shape)} logits from a projection of {tuple(projected.shape)}")
    except Exception as error:  # noqa: BLE001 — whatever a model of an unknown kind raises
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(
            f"{kind} computes its logits from more than its body's last hidden states "
            f"({type(error).__name__}: {reason}), which the chunked losses do not do. {_REMEDY}"
        ) from error
    if found.requires_grad:
        raise UserError(
            f"{kind} has parameters between its output projection and its logits, which the chunked losses would not "
            f"train. {_REMEDY}"
        )
    fits = [(fit, _error(fit(projected), found)) for fit in _fits(projected, found)]
    for fit, error in fits:
        if error <= TOLERANCE and fit.scale > 0:
            return fit
    (factor, error), (capped, other) = fits
    raise UserError(
        f"{kind} transforms its logits after the projection in a way that the chunked losses do not know (they know a "
        f"bias, a factor and soft-capping): the best factor, {factor.scale:.4g}, leaves a relative difference of "
        f"{error:.2g}, the best cap, {capped.softcap:.4g}, one of {other:.2g}, where {TOLERANCE:.0e} is allowed. "
        f"{_REMEDY}"
    )


def _fits(projected: torch.Tensor, found: torch.Tensor) -> tuple[Transformation, Transformation]:
    """The best factor, and the best cap, by median: a few logits that are off do not move it."""
    scale = float((found * projected).sum(-1).div(projected.square().sum(-1)).median())
    cap = float(found.abs().max())  # of the largest logits nothing but the cap is left
    bent = (found / cap).clamp(-0.5, 0.5)  # where tanh can be inverted without loss
    inner = (found.abs() < 0.5 * cap) & (projected != 0)
    slope = float((cap * torch.atanh(bent) / projected)[inner].median())
    return Transformation(_rounded(scale)), Transformation(_rounded(slope), _rounded(cap))


def _error(fitted: torch.Tensor, found: torch.Tensor) -> float:
    return float(((found - fitted).abs() / fitted.abs().amax(-1, keepdim=True)).max())


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")  # of a fit in fp32: an exact 1 or 1/16 again


class _Hidden(BaseModelOutputWithPast):
    """Of everything else that a body may answer with (caches, router logits, …) there is nothing."""

    def __getattr__(self, _name: str) -> None:
        return None


@contextmanager
def _replaced(model: nn.Module, head: nn.Linear, hidden: torch.Tensor) -> Iterator[None]:
    """The model with another output projection, and a body that answers with these hidden states."""
    old, body = model.get_output_embeddings(), model.base_model
    body.forward = lambda *_, **__: _Hidden(last_hidden_state=hidden)
    model.set_output_embeddings(head)
    try:
        yield
    finally:
        del body.forward
        model.set_output_embeddings(old)
