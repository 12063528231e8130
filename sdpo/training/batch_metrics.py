"""What a generation batch says about itself, before anything is learned from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sdpo.types import Group, Sample

_WORTH_A_WARNING = 0.01


def batch_metrics(groups: Sequence[Group], samples: Sequence[Sequence[Sample]], version: int) -> dict[str, float]:
    """Pass rate, spread of the groups, lengths, counts of outcomes, and how much of the batch feeds which stream.

    version: of the weights that learned from the batch, before they did.
    """
    rollouts = [r for group in groups for r in group.rollouts]
    turns = [turn for r in rollouts for turn in r.turns]
    lengths = np.array([len(turn.response_ids) for turn in turns])
    rates = np.array([np.mean([r.solved for r in g.rollouts]) for g in groups if g.rollouts[0].outcome is not None])
    lags = [version - turn.policy_version for turn in turns if turn.policy_version]  # a dataset's responses have none
    flat = [s for group in samples for s in group]
    labels = Counter(r.outcome.label for r in rollouts if r.outcome is not None)
    distinct = [len({r.last.text for r in group.rollouts}) / len(group.rollouts) for group in groups]
    return {
        **(_rewards(rates) if len(rates) else {}),
        "train/distinct_responses": float(np.mean(distinct)),
        "train/taught_fraction": float(np.mean([s.teacher is not None for s in flat])),
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/truncated_fraction": float(np.mean([turn.truncated for turn in turns])),
        "response/tokens": float(lengths.sum()),
        **({"response/staleness_mean": float(np.mean(lags))} if lags else {}),
        **{f"verdict/{name.replace(' ', '_')}": float(count) for name, count in labels.items()},
    }


def _rewards(rates: np.ndarray) -> dict[str, float]:
    return {
        "train/pass_rate": float(rates.mean()),
        "train/groups_with_success": float((rates > 0).mean()),
        "train/groups_with_spread": float(((rates > 0) & (rates < 1)).mean()),
    }


def ungraded_warning(groups: Sequence[Group]) -> str | None:
    """An environment that fails is not a policy that fails; say so where it is no accident (1 % of the batch)."""
    outcomes = [r.outcome for group in groups for r in group.rollouts if r.outcome is not None]
    failed = [outcome for outcome in outcomes if outcome.reward is None]
    if not failed or len(failed) < _WORTH_A_WARNING * len(outcomes):
        return None
    reason = failed[0].details.get("message") or failed[0].label
    return f"warning: {len(failed)} of {len(outcomes)} responses could not be graded and get no reward: {reason}"
