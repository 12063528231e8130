"""A teacher in a process of its own: hidden states of response positions, behind prompts of its own.

The learner projects them chunk by chunk with the teacher's head (`Head`), which it has got before: of R response tokens
[R, H] numbers travel instead of [R, V], and the divergence is what it is where the teacher is the learner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sdpo.config.model_files import known_padding
from sdpo.config.schema import Recipe
from sdpo.learner.logits import Transformation
from sdpo.learner.model import LossHead, load_model
from sdpo.learner.packing import conversations, fill, pack
from sdpo.weights.arrays import as_array, as_tensor
from sdpo.weights.buckets import Bucket

Pair = tuple[np.ndarray, np.ndarray]  # prompt int64 [P], response int64 [R]


@dataclass(frozen=True)
class Head:
    """An output projection as it travels; arrays as `as_array` makes them."""

    weight: np.ndarray  # [V, H]
    bias: np.ndarray | None  # [V]
    transformation: tuple[Any, ...]

    @classmethod
    def of(cls, head: LossHead) -> Head:
        bias = None if head.bias is None else as_array(head.bias)
        return cls(as_array(head.weight), bias, tuple(head.transformation))

    def built(self, dtype: torch.dtype, device: torch.device, like: LossHead) -> LossHead:
        """With the rows and the padding of the student's head: what pads a vocabulary differs between models.

        Raises ValueError where tokens would have no rows.
        """
        rows = like.out_features  # under ZeRO-3 the weight is elsewhere
        if len(self.weight) < (like.padding.start if like.padding else rows):
            raise ValueError(f"the teacher's vocabulary has {len(self.weight)} entries, the student's {rows}")
        head = LossHead(self.weight.shape[1], rows, bias=self.bias is not None, device="meta")
        head.weight = _constant(self.weight, rows, dtype, device)
        if self.bias is not None:
            head.bias = _constant(self.bias, rows, dtype, device)
        head.transformation, head.padding = Transformation(*self.transformation), like.padding
        return head


def _constant(array: np.ndarray, rows: int, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    tensor = as_tensor(array[:rows], dtype)
    if missing := rows - len(tensor):
        tensor = torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])
    return nn.Parameter(tensor.to(device), requires_grad=False)


def passes(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], limit: int) -> list[list[int]]:
    """Indices of the sequences in passes of at most `limit` tokens (one conversation at least); turns of one
    conversation stay together."""
    talks = conversations(prompts, responses)
    last = [talk[-1] for talk in talks]
    filled = fill([prompts[i] for i in last], [len(responses[i]) for i in last], limit)
    return [[i for talk in members for i in talks[talk]] for members in filled]


class Scorer:
    """The weights of a run's beginning, or what the learner has sent of them since; or those of another model.

    recipe: with the teacher's model as `model.path`, `learner.packing` and `model.attention` as it is computed.
    """

    def __init__(self, recipe: Recipe) -> None:
        on_gpu = recipe.profile == "gpu"
        if not on_gpu:
            torch.set_num_threads(recipe.learner.cpu_threads)
        # As in the learner: lengths of packed sequences never come again.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        self.dtype = getattr(torch, recipe.model.dtype)
        self.limit = recipe.learner.pass_tokens
        self.policy = load_model(recipe.model, self.dtype, recipe.seed, recipe.learner.packing == "auto")
        self.policy.head.padding = known_padding(recipe)
        self.policy.watch([theirs for _, theirs in recipe.layer_pairs])
        self.policy.to(self.device)
        self.moving = dict(self.policy.trained())  # what the learner may send
        self.policy.requires_grad_(False).eval()

    @torch.no_grad()
    def score(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        """Of every pair the hidden states [R, H] that predict the response's tokens, as `as_array` makes them.

        Behind the last ones, in the same rows, are those of the layers that are compared (`distillation.layers`).
        """
        prompts, responses = [prompt for prompt, _ in pairs], [response for _, response in pairs]
        found: list[Any] = [None] * len(pairs)
        for members in passes(prompts, responses, self.limit):
            given = pack([prompts[i] for i in members], [responses[i] for i in members], self.device)
            states = as_array(torch.cat(self.policy.states(given), dim=-1))
            ends = np.cumsum([len(responses[i]) for i in members])[:-1]
            for i, own in zip(members, np.split(states, ends), strict=True):
                found[i] = own.copy()  # a view would travel with the whole pass
        return found

    def head(self) -> Head:
        return Head.of(self.policy.head)

    @torch.no_grad()
    def load(self, bucket: Bucket) -> None:
        """Raises KeyError for a weight that the model has not."""
        for name, tensor in bucket:
            self.moving[name].copy_(tensor)
