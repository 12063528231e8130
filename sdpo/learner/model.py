"""A Hugging Face causal language model whose output projection can compute a loss chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from sdpo.config.paths import locate
from sdpo.config.sections import ModelSettings
from sdpo.learner import attention
from sdpo.learner.logit_scale import measured_logit_scale
from sdpo.learner.packing import Pack
from sdpo.losses.chunked import projected_loss


class LossHead(nn.Linear):
    """The output projection.  With `loss` it returns a scalar and never holds more than a chunk of logits.

    It is a module of its own because ZeRO-3 gathers a module's parameters around its forward and backward: the matrix
    is gathered once per step, not once per chunk.
    """

    logit_scale = 1.0  # of the losses' logits; the plain projection leaves it to the model, which applies it

    def forward(
        self, hidden: torch.Tensor, loss: Callable | None = None, chunk_tokens: int = 0, temperature: float = 1.0
    ):
        if loss is None:
            return super().forward(hidden)
        return projected_loss(
            hidden,
            self.weight,
            loss,
            chunk_tokens=chunk_tokens,
            temperature=temperature,
            logit_scale=self.logit_scale,
        )


class PolicyModel(nn.Module):
    """Body and head of a causal language model, run on response tokens only."""

    def __init__(self, model: nn.Module) -> None:
        """Raises UserError for a model whose layers cannot be told of packs, or whose head the losses do not cover."""
        super().__init__()
        attention.check(model)
        old = model.get_output_embeddings()
        scale = measured_logit_scale(model)
        head = LossHead(old.in_features, old.out_features, bias=False, device="meta")
        head.weight = old.weight  # the same Parameter, so tied embeddings stay tied
        head.logit_scale = scale
        model.set_output_embeddings(head)
        self.model = model

    def hidden(self, pack: Pack) -> torch.Tensor:
        """[N, H]: the last hidden states that predict response tokens."""
        body = self.model.base_model
        states = body(
            input_ids=pack.input_ids, position_ids=pack.position_ids, groups=pack.groups, use_cache=False
        ).last_hidden_state
        return states[0].index_select(0, pack.predicts)

    def forward(self, pack: Pack, loss: Callable | None = None, chunk_tokens: int = 0, temperature: float = 1.0):
        """Without `loss` the hidden states [N, H], else (scalar loss, per-token outputs)."""
        hidden = self.hidden(pack)
        if loss is None:
            return hidden
        return self.model.get_output_embeddings()(hidden, loss, chunk_tokens, temperature)

    @property
    def projection(self) -> nn.Parameter:
        return self.model.get_output_embeddings().weight

    @property
    def logit_scale(self) -> float:
        return self.model.get_output_embeddings().logit_scale


def load_model(settings: ModelSettings, dtype: torch.dtype) -> PolicyModel:
    model = AutoModelForCausalLM.from_pretrained(
        locate(settings.path), dtype=dtype, attn_implementation=attention.register(settings.attention)
    )
    return PolicyModel(model)
