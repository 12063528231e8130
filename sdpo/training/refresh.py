"""When a frozen teacher gives way to the present policy: on evidence, not by the clock (`teacher.refresh`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdpo.tracking.known import is_known, mean
from sdpo.training.alarms import PASS_RATE, WINDOW, Row

# Of the rule `reward`.  Its paper (arXiv 2606.03532) publishes no thresholds; these are ours.
APART = 10  # steps between two teachers at least: the paper sees a collapse where it is every step or two
RISE = 0.05  # of the pass rate
TRUNCATED = 0.05  # rise of the share of truncated responses that is still sane
LONGEST = 1.5  # … and of the longest response, as a factor


def refresh_reason(rule: str, rows: Sequence[Row], since: int, probed: Mapping[str, Any]) -> str:
    """Why the policy should become the teacher now; "": it should not.

    rows: of the run's steps; since: the step after which the teacher was taken from the policy; probed: the numbers of
    a probe of the policy as it is, or nothing.
    """
    if rule == "probe":
        return _no_worse(probed) if rows and rows[-1]["step"] > since else ""
    return _reward_rose([row for row in rows if row["step"] > since and is_known(row.get(PASS_RATE))])


def _no_worse(probed: Mapping[str, Any]) -> str:
    """This project's rule: told the same hints, the policy solves at least as much as the teacher."""
    policy, teacher = probed.get("probe/candidate/pass@1"), probed.get("probe/teacher/pass@1")
    if not (is_known(policy) and is_known(teacher)) or policy < teacher:
        return ""
    return f"told the same, it solves {policy:.2f} of the probe and the teacher {teacher:.2f}"


def _reward_rose(rows: Sequence[Row]) -> str:
    """CGTR: since the last copy the pass rate has risen, and the tail of the lengths is no worse."""
    if len(rows) < APART:
        return ""

    def change(key: str) -> tuple[float, float]:
        then, now = mean(row.get(key) for row in rows[:WINDOW]), mean(row.get(key) for row in rows[-WINDOW:])
        return then or 0.0, now or 0.0

    (rate, better), (truncated, more) = change(PASS_RATE), change("response/truncated_fraction")
    longest, longer = change("response/length_max")
    if better < rate + RISE or more > truncated + TRUNCATED or longer > LONGEST * longest:
        return ""
    return f"the pass rate has risen from {rate:.2f} to {better:.2f}"
