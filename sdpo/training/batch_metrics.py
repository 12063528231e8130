"""What a generation batch says about itself, before anything is learned from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sdpo.errors import UserError
from sdpo.prompts.context import continues
from sdpo.training.ngrams import repeated
from sdpo.types import Group, Rollout, Sample, Turn

_WORTH_A_WARNING = 0.01


def batch_metrics(
    groups: Sequence[Group], samples: Sequence[Sequence[Sample]], version: int, most_turns: int = 1
) -> dict[str, float]:
    """Pass rate, spread of the groups, lengths, counts of outcomes, and how much of the batch feeds which stream.

    version: of the weights that learned from the batch, before they did.  most_turns: that a rollout may have.
    """
    rollouts = [r for group in groups for r in group.rollouts]
    turns = [turn for r in rollouts for turn in r.turns]
    lengths = np.array([len(turn.response_ids) for turn in turns])
    asked = any(r.outcome is not None and not r.last.broken for r in rollouts)
    graded = [[r.solved for r in group.rollouts if r.graded] for group in groups]
    rates = np.array([np.mean(solved) for solved in graded if solved])  # what could not be graded is no failure
    flat = [s for group in samples for s in group]
    labels = Counter(r.outcome.label for r in rollouts if r.outcome is not None)
    distinct = [len({r.turns[0].text for r in group.rollouts}) / len(group.rollouts) for group in groups]
    return {
        **(_rewards(rates) if asked else {}),
        **(_turns(rollouts, most_turns) if most_turns > 1 else {}),
        "train/distinct_responses": float(np.mean(distinct)),
        "train/taught_fraction": float(np.mean([s.teacher is not None for s in flat])),
        "response/length_mean": float(lengths.mean()),
        "response/length_max": float(lengths.max()),
        "response/truncated_fraction": float(np.mean([turn.truncated for turn in turns])),
        "response/tokens": float(lengths.sum()),
        "response/repetition": float(np.mean([repeated(turn.response_ids) for turn in turns])),
        "response/not_finite": float(sum(turn.broken for turn in turns)),
        **_staleness(turns, version),
        **{f"verdict/{name.replace(' ', '_')}": float(count) for name, count in labels.items()},
    }


def _staleness(turns: Sequence[Turn], version: int) -> dict[str, float]:
    """By how many versions turns and tokens lag; nothing where nobody sampled them."""
    sampled = [turn.versions for turn in turns if turn.versions]
    if not sampled:
        return {}
    tokens = [(span.end - span.start, version - span.version) for spans in sampled for span in spans]
    return {
        "response/staleness_mean": float(np.mean([version - spans[0].version for spans in sampled])),
        "response/token_staleness_mean": sum(n * lag for n, lag in tokens) / (sum(n for n, _ in tokens) or math.nan),
        "response/token_staleness_max": float(max(lag for _, lag in tokens)),
        "response/versions_mean": float(np.mean([len(spans) for spans in sampled])),
    }


def _rewards(rates: np.ndarray) -> dict[str, float]:
    if not len(rates):
        return dict.fromkeys(("train/pass_rate", "train/groups_with_success", "train/groups_with_spread"), math.nan)
    return {
        "train/pass_rate": float(rates.mean()),
        "train/groups_with_success": float((rates > 0).mean()),
        "train/groups_with_spread": float(((rates > 0) & (rates < 1)).mean()),
    }


def _turns(rollouts: Sequence[Rollout], most: int) -> dict[str, float]:
    """What is solved within so many turns, and how the turns went on."""
    later = [pair for rollout in rollouts for pair in pairwise(rollout.turns)]
    solved = [len(rollout.turns) for rollout in rollouts if rollout.solved]
    graded = sum(rollout.graded for rollout in rollouts) or math.nan
    return {
        **{f"train/pass_rate/turn_{t}": sum(n <= t for n in solved) / graded for t in range(1, most + 1)},
        "turns/per_rollout": float(np.mean([len(rollout.turns) for rollout in rollouts])),
        "turns/context_full": float(sum(rollout.context_full for rollout in rollouts)),
        "turns/history_rewritten": float(np.mean([not continues(*pair) for pair in later])) if later else 0.0,
    }


def generated_tokens(groups: Sequence[Group]) -> int:
    """Tokens that were sampled for these groups; a dataset's responses were not."""
    return sum(len(turn.response_ids) for group in groups for turn in group.turns if turn.versions)


def ungraded_warning(groups: Sequence[Group]) -> str | None:
    """An environment that fails is not a policy that fails; say so where it is no accident (1 % of the batch)."""
    rollouts = [r for group in groups for r in group.rollouts if not r.last.broken]  # of these: `sound_samples`
    outcomes = [r.outcome for r in rollouts if r.outcome is not None]
    failed = [outcome for outcome in outcomes if outcome.reward is None]
    if not failed or len(failed) < _WORTH_A_WARNING * len(outcomes):
        return None
    reason = failed[0].details.get("message") or failed[0].label
    return f"warning: {len(failed)} of {len(outcomes)} responses could not be graded and get no reward: {reason}"


def sound_samples(
    groups: Sequence[Group], samples: Sequence[Sequence[Sample]], updates: int
) -> tuple[list[list[Sample]], str | None]:
    """The samples to learn from, group by group, and a warning where responses are left out (`Turn.broken`).

    Raises UserError where that leaves nothing for one of the batch's updates.
    """
    pairs = zip(samples, groups, strict=True)
    kept = [[s for s, turn in zip(own, group.turns, strict=True) if not turn.broken] for own, group in pairs]
    total, left = sum(map(len, samples)), sum(map(len, kept))
    if left == total:
        return kept, None
    found = f"{total - left} of {total} responses have log-probs that are not finite, as their engine says"
    size = len(kept) // updates
    if not all(any(kept[start : start + size]) for start in range(0, len(kept), size)):
        raise UserError(
            f"{found}; nothing is left to learn from. The policy is broken, or the engine: look at it with `sdpo eval` "
            "and go on from an earlier checkpoint, with a lower learner.lr if the weights have become too large."
        )
    return kept, f"warning: {found}; they get no reward and train nothing"
