"""From the metrics of a run's steps to what has gone wrong with it, in plain sentences.

Four rules, with few thresholds: half of what had been reached, half of all responses.  Chosen so that none of the runs
that learn in docs/results/evidence raises an alarm, and each that falls does (tests/core/test_alarms.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdpo.tracking.known import is_known, known, mean

WINDOW = 5  # steps of a mean: one batch says little
FALL = 0.5  # of the best mean: at group sizes in use, noise does not halve it five times in a row
SLOW = 40  # steps after which something should have been learned; the slowest run that learns has doubled its rate
SLOW_WINDOW = 20
DEGENERATE = 0.5  # share of responses, or of their 4-grams, beyond that at the start
PROBES = 4
SOLVING = 0.5  # where the policy solves that much by itself, it may be as good as its teacher

# Shown against the start as `drift/<name>`.
DRIFT = {
    "divergence": "distillation/loss",
    "entropy": "policy/entropy",
    "teacher_entropy": "distillation/teacher_entropy",
    "length": "response/length_mean",
    "grad_norm": "learner/grad_norm",
}

Row = Mapping[str, Any]  # of one step; a number that is not known is None


@dataclass(frozen=True)
class Alarm:
    """`good`: the last step after which all was well; `harmful`: whether the policy has become worse since."""

    rule: str
    seen: str
    since: int
    remedy: str
    good: int
    harmful: bool

    def __str__(self) -> str:
        return f"{self.seen}, since step {self.since}"


def alarms(rows: Sequence[Row]) -> list[Alarm]:
    """What is wrong after the last of `rows`, the steps of a run in order; evaluations among them are passed over."""
    steps = [row for row in rows if is_known(row.get("response/length_mean"))]
    return [*_collapse(steps), *_degenerate(steps), *_no_progress(steps), *_useless_teacher(steps)]


def drift(rows: Sequence[Row]) -> dict[str, float]:
    """The means over the last steps by those over the first; once the first are there."""
    found = {}
    for name, key in DRIFT.items():
        values = known(row.get(key) for row in rows)
        if len(values) >= WINDOW and (start := sum(values[:WINDOW])) > 0:
            found[f"drift/{name}"] = sum(values[-WINDOW:]) / start
    return found


def _collapse(steps: Sequence[Row]) -> Iterator[Alarm]:
    rates = [(row["step"], row["train/pass_rate"]) for row in steps if is_known(row.get("train/pass_rate"))]
    best, good, since = 0.0, 0, 0
    below = 0
    for end in range(WINDOW, len(rates) + 1):
        step, recent = rates[end - 1][0], sum(rate for _, rate in rates[end - WINDOW : end]) / WINDOW
        if recent >= best:
            best, good = recent, step
        below = below + 1 if recent < FALL * best else 0
        since = step if below == 1 else since
    if below >= WINDOW:
        yield Alarm(
            "collapse",
            f"The training pass rate has fallen: its mean over {WINDOW} steps is {recent:.2f}, less than half of the "
            f"{best:.2f} of step {good}",
            since,
            "try a teacher that follows the policy more slowly (teacher.kind=ema or frozen), or a lower learner.lr",
            good,
            harmful=True,
        )


def _degenerate(steps: Sequence[Row]) -> Iterator[Alarm]:
    for key, what, remedy in (
        ("response/truncated_fraction", "of the responses end at the token limit", "end tokens are no longer written"),
        ("response/repetition", "of a response repeats itself (4-grams)", "text goes round in circles"),
    ):
        shares = [(row["step"], row[key]) for row in steps if is_known(row.get(key))]
        if len(shares) < WINDOW:
            continue
        start = shares[0][1]
        high = [mean(share for _, share in shares[end - WINDOW : end]) for end in range(WINDOW, len(shares) + 1)]
        high = [value >= start + DEGENERATE for value in high]
        if high[-1]:
            first = len(high) - (high[::-1] + [False]).index(False)
            since = shares[first + WINDOW - 1][0]
            share = mean(share for _, share in shares[-WINDOW:])
            yield Alarm(
                key.rpartition("/")[2],
                f"{share:.0%} {what} on average over {WINDOW} steps, {start:.0%} in the first one",
                since,
                f"{remedy}: look at some with `sdpo inspect`, and try a lower learner.lr or a teacher that follows the "
                "policy more slowly",
                max(0, since - WINDOW),
                harmful=True,
            )


def _no_progress(steps: Sequence[Row]) -> Iterator[Alarm]:
    rates = [(row["step"], row["train/pass_rate"]) for row in steps if is_known(row.get("train/pass_rate"))]
    if len(rates) < SLOW:
        return
    start, recent = mean(rate for _, rate in rates[:WINDOW]), mean(rate for _, rate in rates[-SLOW_WINDOW:])
    if start is not None and recent is not None and recent <= start:
        yield Alarm(
            "no_progress",
            f"Nothing is learned: the training pass rate is {recent:.2f} on average over {SLOW_WINDOW} steps, and was "
            f"{start:.2f} in the first {WINDOW}",
            rates[0][0],
            "see whether the feedback is right and the hint helps (probe/gap, `sdpo inspect`), and try another "
            "learner.lr or easier tasks",
            0,
            harmful=False,
        )


def _useless_teacher(steps: Sequence[Row]) -> Iterator[Alarm]:
    probes = [row for row in steps if is_known(row.get("probe/gap"))][-PROBES:]
    gap, rate = mean(row["probe/gap"] for row in probes), mean(row.get("probe/student/pass@1") for row in probes)
    if len(probes) == PROBES and gap is not None and rate is not None and gap <= 0 and rate < SOLVING:
        yield Alarm(
            "useless_teacher",
            f"The teacher with its hint is no better than the policy without: in the last {PROBES} probes it solves "
            f"{-gap:.2f} less, while the policy solves {rate:.2f}",
            probes[0]["step"],
            "see what it is told (`sdpo inspect`), and try another context.demonstration or context.feedback, or "
            "teacher.refresh",
            0,
            harmful=False,
        )
