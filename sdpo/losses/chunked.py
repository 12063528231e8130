"""From hidden states to a loss and its gradients without ever holding more than one chunk of logits.

A vocabulary of 151,936 makes logits the largest tensors of a training step.  The losses here are weighted sums over
tokens with weights known beforehand, so the gradient of each chunk of tokens can be taken as soon as its loss is known,
and the chunk be forgotten: the forward pass already leaves the gradients of hidden states and output matrix behind,
and the backward pass only scales them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, dict[str, Tensor]]]

_HALF = (torch.bfloat16, torch.float16)

# Rows of the output matrix that are worked on at a time where a float32 copy of all of them would be needed otherwise.
_SLAB_ROWS = 16_384

# Rows of the output matrix that stay in a CPU's cache for a chunk of tokens: 10 to 40 % faster than all rows at once.
_CACHED_ROWS = 1_024


# The logit of what is no token: its probability and its gradient are exactly 0, and everything stays finite.
_NEVER = -1e30


class _Head(NamedTuple):
    """u = (hidden @ weight.T + bias) / divisor; the logits are u, or amplitude · tanh(u) where they are capped."""

    weight: Tensor
    bias: Tensor | None
    padding: range
    divisor: float
    amplitude: float | None

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        padding: range,
        temperature: float,
        logit_scale: float,
        softcap: float | None,
    ) -> _Head:
        if softcap is None:
            return cls(weight, bias, padding, temperature / logit_scale, None)
        return cls(weight, bias, padding, softcap / logit_scale, softcap / temperature)

    def without_padding(self, logits: Tensor) -> Tensor:
        """The same tensor.  To leave columns out would make rows that GPUs multiply slowly, for want of alignment."""
        if self.padding:
            logits[:, self.padding.start : self.padding.stop] = _NEVER
        return logits


def project(
    hidden: Tensor,
    weight: Tensor,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    padding: range = range(0),
) -> Tensor:
    """Logits z / temperature [n, V] as constants, with z = logit_scale · (hidden @ weight.T + bias), and with a softcap
    c·tanh(z / c) in the place of z.  float64 for float64 inputs, else float32.

    hidden [n, H], weight [V, H] and bias [V] have one dtype; `padding`: columns that are no tokens, as below.
    Half-precision products are summed *and returned* in float32: rounding a logit of 16 to bfloat16 would move it by up
    to .06, and its probability by 6 %.
    """
    head = _Head.of(weight, bias, padding, temperature, logit_scale, softcap)
    logits = _uncapped(hidden, head)
    return logits if head.amplitude is None else head.without_padding(logits.tanh_().mul_(head.amplitude))


@torch.no_grad()
def _uncapped(hidden: Tensor, head: _Head) -> Tensor:
    weight = head.weight
    if not hidden.is_cpu:
        wide = {"out_dtype": torch.float32} if hidden.dtype in _HALF else {}
        logits = torch.mm(hidden, weight.t(), **wide)
    else:
        hidden = hidden.float() if hidden.dtype in _HALF else hidden
        logits = hidden.new_empty((hidden.shape[0], weight.shape[0]))
        for slab in _slabs(weight.shape[0], _CACHED_ROWS):
            torch.mm(hidden, weight[slab].to(hidden.dtype).t(), out=logits[:, slab])
    if head.bias is not None:
        logits.add_(head.bias)
    return head.without_padding(logits if head.divisor == 1.0 else logits.div_(head.divisor))


def projected_loss(
    hidden: Tensor,
    weight: Tensor,
    fn: ChunkLoss,
    *,
    chunk_tokens: int,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
    padding: range = range(0),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of `fn` over chunks of rows, differentiable with respect to `hidden`, `weight` and `bias`.

    hidden        [N, H]; N may be 0
    weight        [V, H], the output matrix (it may be tied to the embedding), same dtype as `hidden`
    fn            (logits [n, V], rows) → (scalar, {name: tensor [n, …]}).  `rows` is the slice of 0…N that the logits
                  belong to.  The scalar is this chunk's share of the loss: a sum over its tokens with weights that do
                  not depend on other chunks.  Only `logits` is differentiated; whatever else `fn` uses (teacher,
                  advantages) counts as constant.  With N = 0 it is called once with no rows.
    chunk_tokens  the most rows of logits that exist at a time
    temperature   divides the logits before `fn` sees them; gradients account for it
    logit_scale   multiplies them: the factor between the projection and the model's logits (Granite, Cohere)
    bias          [V], added to the product before that (Phi-1, GPT-J), same dtype as `weight`
    softcap       c of c·tanh(logits / c), before the temperature (Gemma 2); costs two more tensors [n, V] per chunk
    padding       columns of V that are no tokens: a vocabulary may be padded.  They have no probability, and a gradient
                  of 0

    Returns (loss, outputs): the loss in float32 (float64 for float64 inputs), and the per-token tensors of all chunks,
    concatenated and detached.

    The gradients of `weight` and `bias` are accumulated in float32 (float64) over chunks whatever their dtype.
    Backward can run once.
    """
    check_inputs(hidden, weight, chunk_tokens, temperature, logit_scale, bias, softcap)
    head = _Head.of(weight, bias, padding, temperature, logit_scale, softcap)
    outputs: dict[str, Tensor] = {}
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias)):
        return _ProjectedLoss.apply(hidden, *head, fn, chunk_tokens, outputs), outputs
    return _run(hidden, head, fn, chunk_tokens, outputs, None), outputs


def check_inputs(
    hidden: Tensor,
    weight: Tensor,
    chunk_tokens: int,
    temperature: float,
    logit_scale: float = 1.0,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> None:
    """ValueError if shapes, dtypes or settings cannot work."""
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)} and weight {tuple(weight.shape)}; expected [N, H] and [V, H]"
        )
    if hidden.dtype != weight.dtype:
        raise ValueError(f"hidden is {hidden.dtype} and weight {weight.dtype}; cast one so that they agree")
    if bias is not None and (bias.shape, bias.dtype) != (weight.shape[:1], weight.dtype):
        raise ValueError(
            f"bias is {bias.dtype} of shape {tuple(bias.shape)}; expected {weight.dtype} of shape ({weight.shape[0]},)"
        )
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens is {chunk_tokens}; it must be at least 1")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive (greedy decoding has no gradient)")
    if not 0 < logit_scale < float("inf"):
        raise ValueError(f"logit_scale is {logit_scale}; it must be positive and finite")
    if softcap is not None and not 0 < softcap < float("inf"):
        raise ValueError(f"softcap is {softcap}; it must be positive and finite, or None for none")


def chunks(rows: int, chunk_tokens: int) -> list[slice]:
    """0…rows in slices of at most `chunk_tokens`; one empty slice for no rows."""
    return [slice(start, min(start + chunk_tokens, rows)) for start in range(0, max(rows, 1), chunk_tokens)]


def _slabs(rows: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, rows, size)]


class GradientSums:
    """Gradients of `hidden` [N, H], `weight` [V, H] and `bias` [V], or None where not `needed`, summed up."""

    def __init__(self, hidden: Tensor, head: _Head, needed: tuple[bool, bool, bool]):
        self._hidden, self._head, self._scale = hidden, head, 1.0 / head.divisor
        dtype = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
        self.hidden = torch.zeros_like(hidden) if needed[0] else None
        self.weight, self.bias = (
            torch.zeros_like(x, dtype=dtype) if x is not None and wanted else None
            for x, wanted in zip(head[:2], needed[1:], strict=True)
        )

    def add(self, rows: slice, grad_logits: Tensor) -> None:
        """Takes in the gradient of u [n, V] of these rows, in the dtype of `weight`; that of the bias is apart."""
        if self.hidden is not None:
            torch.mm(grad_logits, self._head.weight, out=self.hidden[rows]).mul_(self._scale)
        if self.weight is not None:
            _add_outer(self.weight, grad_logits, self._hidden[rows], self._scale)

    def add_bias(self, grad_logits: Tensor) -> None:
        if self.bias is not None:
            self.bias.add_(grad_logits.sum(0), alpha=self._scale)


def _add_outer(total: Tensor, grad_logits: Tensor, hidden: Tensor, scale: float) -> None:
    """total [V, H] += scale · grad_logitsᵀ [V, n] @ hidden [n, H], without a temporary of that size."""
    if hidden.dtype == total.dtype:
        total.addmm_(grad_logits.t(), hidden, alpha=scale)
        return
    # addmm_ wants one dtype.  The product of a slab is taken in the half-precision dtype and added in float32.
    for slab in _slabs(total.shape[0], _SLAB_ROWS):
        total[slab].add_(grad_logits[:, slab].t() @ hidden, alpha=scale)


def _run(
    hidden: Tensor,
    head: _Head,
    fn: ChunkLoss,
    chunk_tokens: int,
    outputs: dict[str, Tensor],
    gradients: GradientSums | None,
) -> Tensor:
    """The pass over all chunks; returns the loss, fills `outputs` and `gradients`."""
    total: Tensor | None = None
    # The dtype of the inputs decides, so autocast has no say in the products below.
    # On the meta device, where there is no autocast, memory is counted.
    with torch.autocast("cpu" if hidden.is_meta else hidden.device.type, enabled=False), torch.no_grad():
        for rows in chunks(hidden.shape[0], chunk_tokens):
            loss = _run_chunk(hidden, head, fn, rows, outputs, gradients)
            total = loss if total is None else total + loss
    return total


def _run_chunk(
    hidden: Tensor,
    head: _Head,
    fn: ChunkLoss,
    rows: slice,
    outputs: dict[str, Tensor],
    gradients: GradientSums | None,
) -> Tensor:
    """The share of the loss of these rows.  When it returns nothing as large as their logits is left."""
    uncapped = _uncapped(hidden[rows], head)
    with torch.set_grad_enabled(gradients is not None):
        uncapped.requires_grad_(gradients is not None)
        logits = uncapped
        if head.amplitude is not None:
            logits = head.without_padding(uncapped.tanh() * head.amplitude)
        loss, tokens = fn(logits, rows)
    _collect(outputs, tokens, rows, hidden.shape[0])
    share = loss.detach().to(logits.dtype)
    if gradients is not None and loss.requires_grad:
        (grad_logits,) = torch.autograd.grad(loss, uncapped, allow_unused=True)
        del uncapped, logits, loss, tokens  # frees the chunk before the products below
        if grad_logits is not None:
            gradients.add_bias(grad_logits)
            grad_logits = grad_logits.to(head.weight.dtype)  # the one in float32 is free from here on
            gradients.add(rows, grad_logits)
    return share


def _collect(outputs: dict[str, Tensor], tokens: dict[str, Tensor], rows: slice, total_rows: int) -> None:
    for name, value in tokens.items():
        value = value.detach()
        if value.shape[:1] != (rows.stop - rows.start,):
            raise ValueError(
                f"output {name!r} of the chunk function has shape {tuple(value.shape)}; "
                f"its first dimension must be the chunk's {rows.stop - rows.start} tokens"
            )
        if name not in outputs:
            outputs[name] = value.new_empty((total_rows, *value.shape[1:]))
        outputs[name][rows] = value


class _ProjectedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: range,
        divisor: float,
        amplitude: float | None,
        fn: ChunkLoss,
        chunk_tokens: int,
        outputs: dict[str, Tensor],
    ) -> Tensor:
        head = _Head(weight, bias, padding, divisor, amplitude)
        gradients = GradientSums(hidden, head, ctx.needs_input_grad[:3])
        loss = _run(hidden, head, fn, chunk_tokens, outputs, gradients)
        ctx.gradients = [gradients.hidden, gradients.weight, gradients.bias]
        ctx.spent = False
        ctx.weight_dtype = weight.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.spent:
            raise RuntimeError(
                "projected_loss was differentiated twice: its gradients are handed over by the first backward pass. "
                "Sum the losses before calling backward."
            )
        gradients, ctx.gradients = ctx.gradients, None
        ctx.spent = True
        # Scaled in place: a second matrix of V×H would be the largest tensor of the step.
        # On accelerators the value is not looked at, because that would wait for the device.
        if grad_loss.device.type != "cpu" or grad_loss.item() != 1.0:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(grad_loss)
        # Those of a head are summed up in a wider dtype than it has.
        return *(g if g is None else g.to(ctx.weight_dtype) for g in gradients), *(None,) * 6
