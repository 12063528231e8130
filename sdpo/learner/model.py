"""A Hugging Face causal language model whose output projection can compute a loss chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from sdpo.config.paths import locate
from sdpo.config.sections import ModelSettings
from sdpo.errors import UserError
from sdpo.learner import attention
from sdpo.learner.adapter import add_adapter
from sdpo.learner.layers import LayerProjections, LayerTargets, chosen_layers, outputs_of
from sdpo.learner.logits import Transformation, measured_transformation
from sdpo.learner.packing import Pack
from sdpo.losses.chunked import project, projected_loss


class LossHead(nn.Linear):
    """The output projection.  With `loss` it returns a scalar and never holds more than a chunk of logits.

    It is a module of its own because ZeRO-3 gathers a module's parameters around its forward and backward: the matrix
    is gathered once per step, not once per chunk.
    """

    transformation = Transformation()  # of the losses' logits; after the plain projection the model applies it
    padding = range(0)  # entries of the vocabulary that are no tokens: the losses give them no probability

    def forward(
        self, hidden: torch.Tensor, loss: Callable | None = None, chunk_tokens: int = 0, temperature: float = 1.0
    ):
        if loss is None:
            return super().forward(hidden)
        given = {"temperature": temperature, **self._options}
        return projected_loss(hidden, self.weight, loss, bias=self.bias, chunk_tokens=chunk_tokens, **given)

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
        """[n, V] of hidden states [n, H], as the losses see them."""
        return project(hidden, self.weight, temperature, bias=self.bias, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        scale, softcap = self.transformation
        return {"logit_scale": scale, "softcap": softcap, "padding": self.padding}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the context the losses see the whole vocabulary, as others do that know no tokenizer."""
        padding, self.padding = self.padding, range(0)
        try:
            yield
        finally:
            self.padding = padding


class PolicyModel(nn.Module):
    """Body and head of a causal language model, run on response tokens only.

    It never leaves evaluation mode, also while it trains: dropout, jitter of routers and whatever else a model does at
    random in training mode would differ from pass to pass, and make another policy than the one that was sampled from.
    """

    def __init__(self, model: nn.Module) -> None:
        """Raises CannotPack for a model with packed attention whose layers cannot be told of packs, and UserError for
        one whose head the losses do not cover."""
        super().__init__()
        self.packs = attention.is_packed(model.config._attn_implementation)
        if self.packs:
            attention.check(model)
        old = model.get_output_embeddings()
        transformation = measured_transformation(model)
        head = LossHead(old.in_features, old.out_features, bias=old.bias is not None, device="meta")
        head.weight, head.bias = old.weight, old.bias  # the same Parameters, so tied embeddings stay tied
        head.transformation = transformation
        model.set_output_embeddings(head)
        self.model = model
        self.projections: LayerProjections | None = None
        self._recomputed: list[GradientCheckpointingLayer] = []
        self._watched: list[nn.Module] = []
        self.train(False)

    def train(self, mode: bool = True) -> PolicyModel:
        """Evaluation mode, whatever is asked for."""
        super().train(False)
        for layer in self._recomputed:
            layer.training = True
        return self

    def recompute_layers(self) -> None:
        """Gradient checkpointing: activations inside a layer are computed anew in the backward pass.

        transformers does it for layers in training mode only.  They are in it until their forward pass begins.
        """
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._recomputed = [layer for layer in self.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        if not self._recomputed:
            raise UserError(
                f"{self.model.config.model_type} has no layers that can be recomputed; set "
                "learner.gradient_checkpointing=false."
            )
        for layer in self._recomputed:
            layer.register_forward_pre_hook(lambda module, _: setattr(module, "training", False))
            layer.register_forward_hook(lambda module, *_: setattr(module, "training", True), always_call=True)
        self.train()

    def watch(self, numbers: Sequence[int]) -> None:
        """From now on `states` has those of these layers, too, counted from 1."""
        self._watched = chosen_layers(self.model, numbers)

    def match(self, projections: LayerProjections | None) -> None:
        """From now on the loss has a part between layers, if there are projections for it."""
        self.projections = projections
        self.watch([] if projections is None else projections.students)

    def states(self, pack: Pack) -> list[torch.Tensor]:
        """[N, H] each, of the tokens that predict response tokens: the last hidden states, and the watched layers'."""
        with outputs_of(self._watched) as found:
            last = self.hidden(pack)
        return [last, *(states[0].index_select(0, pack.predicts) for states in found)]

    def hidden(self, pack: Pack) -> torch.Tensor:
        """[N, H]: the last hidden states that predict response tokens.

        A model without packed attention is called as one calls it for a single sequence, which the pack must be.
        """
        told: dict[str, Any] = {}
        if self.packs:
            told = {"position_ids": pack.position_ids, "groups": pack.groups}
        elif sum(len(group.own) for group in pack.groups) > 1:
            raise ValueError("a model without packed attention was given a pack of several sequences")
        states = self.model.base_model(input_ids=pack.input_ids, use_cache=False, **told).last_hidden_state
        return states[0].index_select(0, pack.predicts)

    def forward(
        self,
        pack: Pack,
        loss: Callable | None = None,
        chunk_tokens: int = 0,
        temperature: float = 1.0,
        layers: LayerTargets | None = None,
    ):
        """Without `loss` the hidden states [N, H], else (scalar loss, per-token outputs); `layers`: for projections."""
        if loss is None:
            return self.hidden(pack)
        if self.projections is None or layers is None:
            return self.head(self.hidden(pack), loss, chunk_tokens, temperature)
        hidden, *between = self.states(pack)
        total, outputs = self.head(hidden, loss, chunk_tokens, temperature)
        weight = outputs.pop("layers_weight", total.new_zeros(len(hidden)))  # without a teacher nothing is distilled
        more, outputs["layers_loss"] = self.projections(between, layers, weight)
        return total + more, outputs

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The policy's parameters that the optimiser moves, by name: all, or the adapter's."""
        return ((name, p) for name, p in self.model.named_parameters("model") if p.requires_grad)

    def optimised(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that the optimiser moves, by name: these, and what is trained beside the policy."""
        yield from self.trained()
        if self.projections is not None:
            yield from self.projections.named_parameters("projections")

    @property
    def head(self) -> LossHead:
        return self.model.get_output_embeddings()


def load_model(settings: ModelSettings, dtype: torch.dtype, seed: int = 0, packs: bool = True) -> PolicyModel:
    """The model of a folder, with a fresh adapter (drawn from `seed`) where the settings ask for one.

    packs  whether it computes packs of sequences, or one sequence at a time with transformers' own attention
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            locate(settings.path),
            dtype=dtype,
            attn_implementation=attention.register(settings.attention) if packs else settings.attention,
            use_safetensors=True,  # other weight files are pickles, which run code when they are read
            output_loading_info=True,
        )
    except OSError as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"Model {settings.path!r} has no weights as safetensors that can be read ({first}).") from None
    if missing := sorted(found["missing_keys"]):  # transformers makes them up, vLLM leaves them as they come
        raise UserError(
            f"The weights of model {settings.path!r} are incomplete: {len(missing)} tensors of its configuration are "
            f"not in its files ({missing[0]}, …). Write the folder again from where it comes from."
        )
    policy = PolicyModel(model)
    if settings.adapter is not None:
        add_adapter(policy.model, settings.adapter, seed)
    return policy
