"""A whole generation batch as one would write it down without looking at speed or memory, in float64.

Plain transformers, one padded batch, full logits, automatic differentiation, AdamW and moving average by hand.  Of sdpo
only the settings are used: routing, advantages, importance weights, divergences, aggregation, clipping, schedule and
optimiser are written here once more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sdpo.config.schema import Recipe


@dataclass
class Response:
    prompt: list[int]
    ids: list[int]
    sampler: Tensor  # float64 [R]
    passed: bool
    group: int
    teacher_prompt: list[int] | None


class Naive:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.recipe = recipe
        self.student = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.parameters = dict(self.student.named_parameters())
        self.moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.parameters.items()}
        self.steps = 0

    def train(self, groups: list[list[Response]]) -> list[dict[str, Tensor]]:
        """All updates of one generation batch; returns the clipped gradient of each."""
        updates = self.recipe.learner.updates_per_batch
        everything = [r for group in groups for r in group]
        with torch.no_grad():
            began = [chosen(p, r) for p, r in zip(self.log_probs(self.student, everything), everything, strict=True)]
        old = {id(r): lp for r, lp in zip(everything, began, strict=True)}
        size, gradients = len(groups) // updates, []
        for u in range(updates):
            batch = [r for group in groups[u * size : (u + 1) * size] for r in group]
            gradients.append(self.update(batch, groups, old))
        if self.recipe.teacher is not None and self.recipe.teacher.kind == "ema":
            rate = self.recipe.teacher.rate
            for own, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                own.data = (1 - rate) * own.data + rate * theirs.data
        return gradients

    def update(self, batch: list[Response], groups, old) -> dict[str, Tensor]:
        loss = self.loss(batch, groups, old)
        names, values = zip(*self.parameters.items(), strict=True)
        found = torch.autograd.grad(loss, values)
        norm = math.sqrt(sum(float(g.square().sum()) for g in found))
        scale = min(1.0, self.recipe.learner.clip_grad_norm / (norm + 1e-6))
        gradients = {n: g * scale for n, g in zip(names, found, strict=True)}
        self.adamw(gradients)
        return gradients

    def adamw(self, gradients: dict[str, Tensor]) -> None:
        """Loshchilov and Hutter, arXiv 1711.05101, with bias correction; the learning rate warms up linearly."""
        settings = self.recipe.learner
        rate = settings.lr * min(1.0, (self.steps + 1) / (settings.warmup_steps + 1))
        self.steps += 1
        first, second = settings.betas
        for name, p in self.parameters.items():
            m, v = self.moments[name]
            m.mul_(first).add_((1 - first) * gradients[name])
            v.mul_(second).add_((1 - second) * gradients[name] ** 2)
            step = (m / (1 - first**self.steps)) / ((v / (1 - second**self.steps)).sqrt() + 1e-8)
            p.data = p.data - rate * settings.weight_decay * p.data - rate * step

    # ------------------------------------------------------------------------------------------------------- the loss

    def loss(self, batch: list[Response], groups, old) -> Tensor:
        r, several = self.recipe, self.recipe.learner.updates_per_batch > 1
        student = self.log_probs(self.student, batch)
        taught = [x for x in batch if x.teacher_prompt is not None]
        with torch.no_grad():
            theirs = self.log_probs(self.teacher, taught, teacher=True) if taught else []
        teacher = {id(x): q for x, q in zip(taught, theirs, strict=True)}
        gradient, distilled = [], []  # per response: (loss [R], counted [R]), or None
        for x, p in zip(batch, student, strict=True):
            own, before = chosen(p, x), old[id(x)] if several else chosen(p, x).detach()
            to_pg, to_d = self.route(x)
            gradient.append(self.policy_gradient(own, before, x, groups) if to_pg else None)
            distilled.append(self.distillation(p, own, before, x, teacher[id(x)], several) if to_d else None)
        if r.algorithm.name == "srpo":
            minus_entropies = [(q.exp() * q).sum(-1) for x, q in zip(taught, theirs, strict=True)]
            weights = {
                id(x): (r.algorithm.entropy_beta * e).exp() for x, e in zip(taught, minus_entropies, strict=True)
            }
            mean = torch.cat([weights[id(x)] for x, d in zip(batch, distilled, strict=True) if d is not None]).mean()
            distilled = [
                d if d is None else (d[0] * weights[id(x)] / mean, d[1]) for x, d in zip(batch, distilled, strict=True)
            ]
        mix = getattr(r.algorithm, "mix", None)
        shared = None
        if mix is not None or r.algorithm.name == "srpo":
            shared = [either(g, d) for g, d in zip(gradient, distilled, strict=True)]
        total = torch.zeros((), dtype=torch.float64)
        if r.policy_gradient is not None:
            total = total + (1.0 if mix is None else mix) * reduced(gradient, shared, r.policy_gradient.aggregation)
        if r.distillation is not None:
            total = total + (1.0 if mix is None else 1 - mix) * reduced(distilled, shared, r.distillation.aggregation)
        return total

    def route(self, x: Response) -> tuple[bool, bool]:
        """(policy gradient, distillation)"""
        taught = x.teacher_prompt is not None
        if self.recipe.algorithm.name == "srpo":
            return (False, True) if taught and not x.passed else (True, False)
        return self.recipe.policy_gradient is not None, self.recipe.distillation is not None and taught

    def policy_gradient(self, own, before, x: Response, groups) -> tuple[Tensor, Tensor]:
        s = self.recipe.policy_gradient
        rewards = [float(y.passed) for y in groups[x.group]]
        advantage = float(x.passed) - sum(rewards) / len(rewards)
        ratio = (own - before).exp()
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - s.clip_low, 1 + s.clip_high))
        if advantage < 0:
            loss = torch.minimum(loss, torch.full_like(loss, -advantage * s.dual_clip))
        loss = loss * (before - x.sampler).exp().clamp(max=s.sampler_threshold)
        return loss, torch.ones(len(x.ids), dtype=torch.bool)

    def distillation(self, p, own, before, x: Response, q, several: bool) -> tuple[Tensor, Tensor]:
        s = self.recipe.distillation
        if s.top_k is not None:
            ids = p.detach().topk(s.top_k, -1).indices
            p, q = with_tail(p, ids), with_tail(q, ids)
        if s.alpha == 0:
            entries = q.exp() * (q - p)
        elif s.alpha == 1:
            entries = p.exp() * (p - q)
        else:
            m = ((1 - s.alpha) * p.exp() + s.alpha * q.exp()).log()
            entries = (1 - s.alpha) * p.exp() * (p - m) + s.alpha * q.exp() * (q - m)
        if s.entry_clip is not None:
            entries = entries.clamp(max=s.entry_clip)
        loss = entries.sum(-1) * (before - x.sampler).exp().clamp(max=s.sampler_threshold)
        if several:
            loss = loss * (own - before).exp().detach().clamp(max=s.is_clip)
        counted = torch.arange(len(x.ids)) >= s.skip_tokens
        return loss, counted

    def log_probs(self, model, batch: list[Response], teacher: bool = False) -> list[Tensor]:
        """[R, V] of every response, from one batch padded on the right."""
        prompts = [x.teacher_prompt if teacher else x.prompt for x in batch]
        longest = max(len(p) + len(x.ids) for p, x in zip(prompts, batch, strict=True))
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, (p, x) in enumerate(zip(prompts, batch, strict=True)):
            ids[i, : len(p) + len(x.ids)] = torch.tensor([*p, *x.ids])
            mask[i, : len(p) + len(x.ids)] = 1
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits / self.recipe.rollout.temperature
        if teacher:
            logits = logits / self.recipe.distillation.teacher_temperature
        return [
            logits[i, len(p) - 1 : len(p) - 1 + len(x.ids)].log_softmax(-1)
            for i, (p, x) in enumerate(zip(prompts, batch, strict=True))
        ]


def chosen(log_probs: Tensor, x: Response) -> Tensor:
    return log_probs[torch.arange(len(x.ids)), torch.tensor(x.ids)]


def with_tail(log_probs: Tensor, ids: Tensor) -> Tensor:
    """The entries `ids`, and the rest of the mass as one more."""
    rest = 1 - log_probs.gather(-1, ids).exp().sum(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, ids), rest.clamp(min=1e-7).log()], -1)


def either(a, b) -> Tensor:
    """Which tokens of a response carry one of two losses."""
    counted = [x[1] for x in (a, b) if x is not None]
    return torch.stack(counted).any(0)


def reduced(losses: list, shared: list[Tensor] | None, aggregation: str) -> Tensor:
    """One stream's mean; `shared`: the tokens of the normaliser, where two streams have one."""
    counted = shared or [None if x is None else x[1] for x in losses]
    sums = [(x[0] * x[1]).sum() if x is not None else torch.zeros((), dtype=torch.float64) for x in losses]
    tokens = [0 if c is None else int(c.sum()) for c in counted]
    if aggregation == "token-mean":
        return torch.stack(sums).sum() / max(1, sum(tokens))
    assert aggregation == "seq-mean-token-mean"
    means = [s / n for s, n in zip(sums, tokens, strict=True) if n]
    return torch.stack(means).mean()
