"""What a generation batch says about itself, before anything is learned from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sdpo.types import Group, Sample


def batch_metrics(groups: Sequence[Group], samples: Sequence[Sequence[Sample]], version: int) -> dict[str, float]:
    """Pass rate, spread of the groups, lengths, verdict counts, and how much of the batch feeds which stream.

    version: of the weights that learned from the batch, before they did.
    """
    rollouts = [r for group in groups for r in group.rollouts]
    lengths = np.array([len(r.response_ids) for r in rollouts])
    rates = np.array([group.rewards.mean() for group in groups if group.judgements])
    lags = [version - r.policy_version for r in rollouts if r.policy_version]  # a dataset's responses have none
    flat = [s for group in samples for s in group]
    verdicts = Counter(str(j.verdict) for group in groups for j in group.judgements)
    distinct = [len({r.text for r in group.rollouts}) / len(group.rollouts) for group in groups]
    return {
        **(_rewards(rates) if len(rates) else {}),
        "train/distinct_responses": float(np.mean(distinct)),
        "train/taught_fraction": float(np.mean([s.teacher is not None for s in flat])),
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/truncated_fraction": float(np.mean([r.truncated for r in rollouts])),
        "response/tokens": float(lengths.sum()),
        **({"response/staleness_mean": float(np.mean(lags))} if lags else {}),
        **{f"verdict/{name.replace(' ', '_')}": float(count) for name, count in verdicts.items()},
    }


def _rewards(rates: np.ndarray) -> dict[str, float]:
    return {
        "train/pass_rate": float(rates.mean()),
        "train/groups_with_success": float((rates > 0).mean()),
        "train/groups_with_spread": float(((rates > 0) & (rates < 1)).mean()),
    }


def verdict_warning(groups: Sequence[Group]) -> str | None:
    """A sandbox that fails is not a policy that fails; say so when it happens."""
    failed = [j for group in groups for j in group.judgements if str(j.verdict) == "sandbox error"]
    if not failed:
        return None
    return f"warning: the sandbox failed on {len(failed)} programs, which get no reward: {failed[0].message}"
