"""Memory of activations, counted on the meta device: the code that trains runs on tensors that have shapes only.

What is counted are the storages that PyTorch's operators return.  What an operator needs while it runs is not seen;
where that is as large as a chunk of logits it is added (`_SEARCHED`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdpo.algorithms.base import LossPlan
from sdpo.learner.objective import Targets, build_objective
from sdpo.learner.packing import SharedPrefix
from sdpo.learner.shapes import Shapes
from sdpo.losses.chunked import project, projected_loss
from sdpo.losses.logits import blended_logits, mix_logits

Groups = tuple[SharedPrefix, ...]


@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one decoder layer on a pack."""

    output: int  # what the next layer starts from: all that is kept of a layer that is computed anew
    saved: int  # for its backward pass, the output included
    backward: int  # most at a time from the saved until the gradient of its input is there
    forward: int  # most at a time in a pass without gradient
    given: int  # to all layers of a pass alike, beside the hidden states: position encodings, masks


class Live(TorchDispatchMode):
    """Bytes of the storages that were made within the context and are still there, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Those that were there before."""
        self._counted.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._counted:
            return
        self._counted.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Lets PyTorch's attention take what its fused kernels take, which keep output and logsumexp.

    On the meta device it would make all T×T scores.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and args[0].is_meta:
            return self._fused(*args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def _fused(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if attn_mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal)[0]
        bias = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p)[0]


class _Unpadded(TorchFunctionMode):
    """Answers what transformers asks of values while it makes masks: that no token is padding, and all are of one
    sequence."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func == torch.Tensor.__bool__ and args[0].is_meta:
            return True
        return func(*args, **(kwargs or {}))


def typical_pack(tokens: int, prompt: int, response: int, responses: int) -> Groups:
    """A full pack: groups of so many responses of `response` tokens behind a prompt, the last response cut off."""
    groups, left = [], tokens
    while left > 0:
        shared = min(prompt, left)
        left -= shared
        own: list[int] = []
        while left > 0 and len(own) < responses:
            own.append(min(response, left))
            left -= own[-1]
        groups.append(SharedPrefix(shared, tuple(own)))
    return tuple(groups)


def response_tokens(groups: Groups) -> int:
    return sum(sum(group.own) for group in groups)


@lru_cache
def layer_memory(shapes: Shapes, groups: Groups) -> dict[int, LayerMemory]:
    """Of each kind of layer (`Shapes.kinds`) on a pack, which for a model that does not pack is one sequence."""
    calls: dict[int, tuple[tuple, dict]] = {}
    kinds, given = set(shapes.kinds), 0

    def note(kind: int, args: tuple, kwargs: dict) -> None:
        nonlocal given
        if not calls:
            masks.close()
            given = live.now - args[0].untyped_storage().nbytes()
        calls[kind] = args, kwargs
        if len(calls) == len(kinds):
            raise _AllSeen

    handles = [
        shapes.layers[kind].register_forward_pre_hook(
            lambda _, args, kwargs, kind=kind: note(kind, args, kwargs), with_kwargs=True
        )
        for kind in kinds
    ]
    ids = torch.zeros(1, sum(group.length for group in groups), dtype=torch.int64, device="meta")
    told = {"position_ids": ids, "groups": groups} if shapes.packs else {}
    try:
        with torch.no_grad(), FusedAttention(), suppress(_AllSeen), Live() as live, ExitStack() as masks:
            live.ignore([ids])
            masks.enter_context(_Unpadded())
            shapes.model.base_model(input_ids=ids, use_cache=False, **told)
    finally:
        for handle in handles:
            handle.remove()
    return {kind: _one_layer(shapes.layers[kind], given, *call) for kind, call in calls.items()}


class _AllSeen(Exception):
    """No further layer tells anything new."""


def _one_layer(layer: nn.Module, beside: int, args: tuple, kwargs: dict) -> LayerMemory:
    def run(hidden: torch.Tensor) -> torch.Tensor:
        found = layer(hidden, *args[1:], **kwargs)
        return found[0] if isinstance(found, tuple) else found

    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    hidden = args[0].detach().requires_grad_()
    there = [*given, *layer.parameters(), *layer.buffers()]
    with FusedAttention(), Live() as live, torch.no_grad():
        live.ignore(there)
        run(hidden)
    forward = live.peak
    dropped = [p.register_post_accumulate_grad_hook(_drop) for p in layer.parameters() if p.requires_grad]
    try:
        with FusedAttention(), Live() as live, torch.enable_grad():
            live.ignore(there)
            output = run(hidden)
            saved = live.now
            output.backward(torch.empty_like(output))
    finally:
        for handle in dropped:
            handle.remove()
    return LayerMemory(output.untyped_storage().nbytes(), saved, live.peak, forward, beside)


def _drop(parameter: nn.Parameter) -> None:
    """What reduces gradients takes them as they come (`sdpo.learner.memory`)."""
    parameter.grad = None


@lru_cache
def losses_memory(
    plan: LossPlan, shapes: Shapes, tokens: int, chunk_tokens: int, triton: bool, teachers: int = 0
) -> int:
    """Most bytes at a time from the hidden states [tokens, H] of responses until their gradients are there.

    teachers: sets of logits that a teacher's are made of, those of a blend included; 0 without a teacher.
    """
    dtype, counted = shapes.model.dtype, min(tokens, 3 * chunk_tokens)  # a fourth chunk is as the third

    def made(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    weight = made(shapes.vocabulary, shapes.hidden, dtype=dtype).requires_grad_(shapes.head_trains)
    hidden = made(counted, shapes.hidden, dtype=dtype).requires_grad_()
    theirs = [made(counted, shapes.hidden, dtype=dtype) for _ in range(teachers)]
    given = {field.name: made(counted) for field in fields(Targets)} | {"tokens": made(counted, dtype=torch.int64)}
    if plan.policy_gradient is not None and plan.policy_gradient.variant != "gspo":
        given["sequence_log_ratio"] = None
    targets = Targets(**given)

    blend = None if plan.distillation is None else plan.distillation.blend

    def teacher(rows: slice) -> torch.Tensor:
        each = [project(hidden[rows], weight.detach()) for hidden in theirs]
        sides = [each] if blend is None else [each[: teachers // 2], each[teachers // 2 :]]
        mixed = [side[0] if len(side) == 1 else mix_logits(side[0], side[1], 0.5) for side in sides]
        return mixed[0] if blend is None else blended_logits(mixed[0], mixed[1], blend.largest, blend.beta)

    objective = build_objective(plan, targets, teacher if teachers else None, triton)
    with Live() as live, torch.enable_grad():
        live.ignore([weight, hidden, *theirs, *(t for t in vars(targets).values() if t is not None)])
        projected_loss(hidden, weight, objective, chunk_tokens=chunk_tokens)[0].backward()
    restricted = plan.distillation is not None and bool(teachers) and plan.distillation.top_k is not None
    searched = restricted * _SEARCHED * min(chunk_tokens, tokens) * shapes.vocabulary
    gradient = (tokens - counted) * shapes.hidden * dtype.itemsize
    return live.peak + searched + gradient


_SEARCHED = 4  # bytes per logit: `logsumexp`, for the mass outside of the top K, exponentiates a copy
