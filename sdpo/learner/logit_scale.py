"""What a model does to its logits after the projection, measured: a constant factor, or something that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from sdpo.errors import UserError

_REMEDY = "Use an architecture without it (Qwen, Llama, OLMo, Mistral, …)."

_TOKENS, _ENTRIES = 9, 32

# Largest deviation of a logit from the multiple, relative to its token's largest; rounding in fp32 makes some 1e-6.
TOLERANCE = 1e-4


def measured_logit_scale(model: nn.Module) -> float:
    """The factor between `hidden @ weight.T` and the logits of a causal language model.

    The body is replaced by random hidden states of all sizes, and the output matrix by a small random one, so neither
    weights nor a device matter.  A factor is what Granite and Cohere have; soft-capping bends the largest logits.

    Raises UserError, with both numbers, where logits are no multiple of the projection.
    """
    kind, old = model.config.model_type, model.get_output_embeddings()
    if not isinstance(old, nn.Linear):
        raise UserError(f"{kind} has no linear output projection, which the chunked losses need. {_REMEDY}")
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(old.in_features, _ENTRIES, bias=old.bias is not None, device="cpu", dtype=torch.float32)
    for parameter in head.parameters():
        nn.init.normal_(parameter.requires_grad_(False), generator=generator)
    sizes = torch.logspace(-1, 3, _TOKENS)[:, None]  # logits of up to some thousands
    hidden = torch.randn(_TOKENS, old.in_features, generator=generator) * sizes / old.in_features**0.5
    projected = hidden.double() @ head.weight.double().t()
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
    # The median over sizes: a cap is all but a factor of 1 for small logits, and shows in the large ones.
    scale = float(((found * projected).sum(-1) / projected.square().sum(-1)).median())
    error = float(((found - scale * projected).abs() / projected.abs().amax(-1, keepdim=True)).max()) / abs(scale)
    if not (error <= TOLERANCE and scale > 0):
        raise UserError(
            f"{kind} transforms its logits after the projection by more than a factor (bias, soft-capping, …), which "
            f"the chunked losses do not do: the best factor, {scale:.4g}, leaves a relative difference of {error:.2g}, "
            f"where {TOLERANCE:.0e} is allowed. {_REMEDY}"
        )
    return float(f"{scale:.7g}")  # of a fit in fp32: an exact 1 or 1/16 again


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
