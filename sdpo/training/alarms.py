"""From the metrics of a run's steps to what has gone wrong with it, in plain sentences.

Five rules, with few thresholds: half of what had been reached, half of all responses, one nat.  Chosen so that none of
the runs that learn in docs/results/evidence raises an alarm, and each that falls does (tests/core/test_alarms.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sdpo.tracking.known import is_known, known, mean

WINDOW = 5  # steps of a mean: one batch says little
FALL = 0.5  # of the best mean: at group sizes in use, noise does not halve it five times in a row
SLOW = 40  # steps after which something should have been learned; the slowest run that learns has doubled its rate
SLOW_WINDOW = 20
DEGENERATE = 0.5  # share of responses, or of their 4-grams, beyond that at the start
PROBES = 4
ELSEWHERE = 1.0  # nats between sampler and learner, the mean of a step's tokens: old weights and rounding make .01
SOLVING = 0.5  # where the policy solves that much by itself, it may be as good as its teacher

PASS_RATE, SAMPLER = "train/pass_rate", "policy/kl_sampler"
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
    found = _collapse(steps), _degenerate(steps), _no_progress(steps), _useless_teacher(steps), _other_sampler(steps)
    return [alarm for rule in found for alarm in rule]


def drift(rows: Sequence[Row]) -> dict[str, float]:
    """The means over the last steps by those over the first; once the first are there."""
    found = {}
    for name, key in DRIFT.items():
        values = known(row.get(key) for row in rows)
        if len(values) >= WINDOW and (start := sum(values[:WINDOW])) > 0:
            found[f"drift/{name}"] = sum(values[-WINDOW:]) / start
    return found


def _means(steps: Sequence[Row], key: str) -> list[tuple[int, float]]:
    """(last step, mean over WINDOW steps), from the first window on; steps in which it is not known do not count."""
    values = [(row["step"], row[key]) for row in steps if is_known(row.get(key))]
    ends = range(WINDOW, len(values) + 1)
    return [(values[end - 1][0], fmean(value for _, value in values[end - WINDOW : end])) for end in ends]


def _best(steps: Sequence[Row]) -> tuple[int, float]:
    """The step after which the mean pass rate was at its best, the last of equals, and that mean; 0 without any."""
    return max(_means(steps, PASS_RATE), key=lambda each: (each[1], each[0]), default=(0, 0.0))


def _collapse(steps: Sequence[Row]) -> Iterator[Alarm]:
    highest, low = 0.0, []  # the latest means in a row that are far below what had been reached
    for step, rate in (means := _means(steps, PASS_RATE)):
        highest = max(highest, rate)
        low = [*low, step] if rate < FALL * highest else []
    if len(low) >= WINDOW:
        good, best = _best(steps)
        yield Alarm(
            "collapse",
            f"The training pass rate has fallen: its mean over {WINDOW} steps is {means[-1][1]:.2f}, less than half of "
            f"the {best:.2f} of step {good}",
            low[0],
            "try a teacher that follows the policy more slowly (teacher.kind=ema or frozen), or a lower learner.lr",
            good,
            harmful=True,
        )


def _degenerate(steps: Sequence[Row]) -> Iterator[Alarm]:
    for key, what in (
        ("response/truncated_fraction", "of the responses end at the token limit"),
        ("response/repetition", "of a response repeats itself (4-grams)"),
    ):
        start, high = next((row[key] for row in steps if is_known(row.get(key))), 0.0), []
        for step, share in (means := _means(steps, key)):
            high = [*high, step] if share >= start + DEGENERATE else []
        if high:
            before, (good, best) = max(0, high[0] - WINDOW), _best(steps)
            yield Alarm(
                key.rpartition("/")[2],
                f"{means[-1][1]:.0%} {what} on average over {WINDOW} steps, {start:.0%} in the first one",
                high[0],
                "look at some responses with `sdpo inspect`, and try a lower learner.lr or a teacher that follows the "
                "policy more slowly",
                min(before, good) if best else before,
                harmful=True,
            )


def _no_progress(steps: Sequence[Row]) -> Iterator[Alarm]:
    rates = known(row.get(PASS_RATE) for row in steps)
    if len(rates) < SLOW:
        return
    start, recent = fmean(rates[:WINDOW]), fmean(rates[-SLOW_WINDOW:])
    if recent <= start:
        yield Alarm(
            "no_progress",
            f"Nothing is learned: the training pass rate is {recent:.2f} on average over {SLOW_WINDOW} steps, and was "
            f"{start:.2f} in the first {WINDOW}",
            steps[0]["step"],
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


def _other_sampler(steps: Sequence[Row]) -> Iterator[Alarm]:
    apart: list[tuple[int, float]] = []  # the latest steps in a row
    for row in steps:
        if is_known(gap := row.get(SAMPLER)):
            apart = [*apart, (row["step"], abs(gap))] if abs(gap) >= ELSEWHERE else []
    if apart:
        yield Alarm(
            "other_sampler",
            f"The engines do not sample from what the learner trains: log-probs of the sampled tokens differ by "
            f"{apart[-1][1]:.3g} nats on average",
            apart[0][0],
            "compare the model's vocabulary with its tokenizer's, and what rollout.engine_args changes about sampling",
            max(0, apart[0][0] - 1),
            harmful=False,
        )
