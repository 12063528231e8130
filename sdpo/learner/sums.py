"""Metrics of a batch as sums and counts, so that they can be added over micro-batches and ranks before dividing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sdpo.learner.rows import Row
from sdpo.types import ScoredTokens

if TYPE_CHECKING:  # the driver adds up sums without importing torch
    import torch


@dataclass
class Sums:
    """`totals[name] = [sum, count]` for means (left out where the count is 0), `plain` for what is only added up,
    `routed` the tokens that each expert of a layer was given (`sdpo.learner.routing`)."""

    totals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    plain: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    routed: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        for name, (total, count) in other.totals.items():
            self.totals[name][0] += total
            self.totals[name][1] += count
        for name, value in other.plain.items():
            self.plain[name] = self.plain.get(name, 0.0) + value
        for name, value in other.largest.items():
            self.largest[name] = float(np.maximum(value, self.largest.get(name, value)))  # NaN, where one is
        for name, counts in other.routed.items():
            self.routed[name] = counts + self.routed.get(name, 0)

    def means(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self.totals.items() if count}
        return {**means, **self.plain, **self.largest, **load_statistics(self.routed)}

    def __reduce__(self):  # the defaultdict's lambda does not pickle
        return _restore, (dict(self.totals), self.plain, self.largest, self.routed)


def _restore(totals: dict[str, list[float]], *others: Any) -> Sums:
    sums = Sums(defaultdict(lambda: [0.0, 0.0]), *others)
    sums.totals.update(totals)
    return sums


def load_statistics(routed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How evenly tokens were shared out among experts; nothing where there are none.

    routing/max_load is the load of the busiest expert as a multiple of its layer's mean, in the layer where it is
    largest; routing/entropy the entropy of the load as a share of the largest that there can be, log(experts), on
    average over layers; routing/dead_experts the share of experts that got no token.
    """
    loads = [counts / counts.sum() for counts in routed.values() if counts.sum()]
    if not loads:
        return {}
    entropies = [-(load[load > 0] * np.log(load[load > 0])).sum() / np.log(max(2, len(load))) for load in loads]
    return {
        "routing/max_load": float(max(load.max() * len(load) for load in loads)),
        "routing/entropy": float(np.mean(entropies)),
        "routing/dead_experts": float(np.mean(np.concatenate(loads) == 0)),
    }


ADVANTAGE = "distillation/advantage_size"

# per-token output → (metric, which tokens it is averaged over)
_METRICS = {
    "entropy": ("policy/entropy", "all"),
    "clipped": ("policy/clipped_fraction", "policy_gradient_weight"),
    "dual_clipped": ("policy/dual_clipped_fraction", "policy_gradient_weight"),
    "sampler_weight": ("importance/sampler_weight", "all"),
    "policy_ratio": ("importance/policy_ratio", "distillation_weight"),
    "reference_kl": ("reference/kl", "reference_weight"),
    "distillation_loss": ("distillation/loss", "distillation_weight"),
    "layers_loss": ("distillation/layers_loss", "distillation_weight"),
    "teacher_entropy": ("distillation/teacher_entropy", "distillation_weight"),
    "teacher_gain": ("distillation/teacher_gain", "distillation_weight"),
    "advantage_size": (ADVANTAGE, "distillation_weight"),
}


_BY_TURN = ("distillation_loss", "teacher_gain")  # how far the teacher is from the policy


def token_sums(rows: list[Row], loss: torch.Tensor, outputs: dict[str, torch.Tensor], by_turn: bool = False) -> Sums:
    """Sums over the response tokens of one micro-batch; filler rows belong to no metric.

    by_turn: what tells how far the teacher is from the policy also for turns of each number (`…/turn_2`).

    policy/kl_sampler is the mean of log π_sampler − log π over sampled tokens, π the trainer's policy that the batch
    began with: an estimate of KL(sampler‖trainer), which on-policy is rounding;
    distillation/teacher_gain the mean of log q − log π: how much likelier the sampled token is to the teacher,
    and distillation/advantage_size the mean of its absolute value.
    """
    sums = Sums()
    sums.plain["learner/loss"] = float(loss.detach())
    counted = np.concatenate([np.full(len(row.response_ids), row.counts) for row in rows])
    turns = np.concatenate([np.full(len(row.response_ids), row.turn) for row in rows])
    values = {name: value.float().cpu().numpy() for name, value in outputs.items()}
    if "teacher_log_probs" in values:
        values["teacher_gain"] = values["teacher_log_probs"] - values["log_probs"]
        values["advantage_size"] = np.abs(values["teacher_gain"])
    for name, (metric, over) in _METRICS.items():
        if name in values:
            mask = counted if over == "all" else counted & (np.concatenate([getattr(row, over) for row in rows]) != 0)
            sums.totals[metric][0] += float(values[name][mask].sum())
            sums.totals[metric][1] += int(mask.sum())
            for turn in np.unique(turns[mask]) if by_turn and name in _BY_TURN else ():
                found = values[name][mask & (turns == turn)]
                sums.totals[f"{metric}/turn_{turn}"][0] += float(found.sum())
                sums.totals[f"{metric}/turn_{turn}"][1] += len(found)
    if rows[0].old_log_probs is not None:  # later updates of a batch: the policy that was sampled from is the old one
        values["log_probs"] = np.concatenate([row.old_log_probs for row in rows])
    # A dataset's responses have no sampler.  Of those that have one, a gap that is not known is no gap of 0.
    sampled = np.concatenate([np.full(len(row.response_ids), was_sampled(row)) for row in rows])
    gap = (np.concatenate([row.sampler_log_probs for row in rows]) - values["log_probs"])[counted & sampled]
    sums.totals["policy/kl_sampler"][0] += float(gap.sum())
    sums.totals["policy/kl_sampler"][1] += len(gap)
    if len(gap):
        sums.largest["policy/sampler_gap_max"] = float(np.abs(gap).max())
    return sums


def was_sampled(row: Row) -> bool:
    """Whether an engine sampled it: nobody knows log-probs of a dataset's response."""
    return not np.isnan(row.sampler_log_probs).all()


def scored_tokens(rows: list[Row], outputs: dict[str, torch.Tensor]) -> list[ScoredTokens]:
    """The outputs of one micro-batch, row by row, as a weight hook sees them."""
    ends = np.cumsum([len(row.response_ids) for row in rows])[:-1]
    values = {name: np.split(value.float().cpu().numpy(), ends) for name, value in outputs.items()}
    scored = []
    for i, row in enumerate(rows):
        taught = row.teacher_prompt_ids is not None
        scored.append(
            ScoredTokens(
                weight=row.distillation_weight if taught else None,
                advantages=row.advantages,
                entropy=values["entropy"][i],
                teacher_entropy=values["teacher_entropy"][i] if taught else None,
                log_ratio=values["teacher_log_probs"][i] - values["log_probs"][i] if taught else None,
            )
        )
    return scored
