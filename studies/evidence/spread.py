"""How far runs are apart that differ in random numbers alone, and whether two runs are further apart than that."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.evidence.evidence import Evidence
from studies.evidence.reaching import Passes, difference
from studies.evidence.record import Record
from studies.evidence.settings import area

_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}  # 97.5 % quantile, n − 1 degrees of freedom


def further_run(values: Sequence[float]) -> float:
    """Half the width of the 95 % prediction interval of one more value: t·s·√(1 + 1/n)."""
    return two_runs(values) * ((1 + 1 / len(values)) / 2) ** 0.5


def two_runs(values: Sequence[float]) -> float:
    """How far two further values are apart, 95 %: t·s·√2."""
    return _T.get(len(values), 2.3) * statistics.stdev(values) * 2**0.5


def repeated(evidence: Evidence) -> dict[str, list[Record]]:
    """Algorithm → its runs that differ in the seed alone (part `repeats`)."""
    result: dict[str, list[Record]] = {}
    for spec, record in evidence.finished("repeats"):
        result.setdefault(spec.algorithm, []).append(record)
    return result


def margin(evidence: Evidence) -> float:
    """What two runs of SDPO's chosen settings may differ by in mean training pass@1; 0 before they are repeated."""
    records = repeated(evidence).get("sdpo", [])
    return two_runs([area(record) for record in records]) if len(records) > 1 else 0.0


def better(a: Record, b: Record, margin: float) -> int:
    """1 if a's mean training pass@1 over the budget is the greater one, -1 if b's is, 0 if that cannot be told.

    It can where the interval of the difference, over their common problems, leaves 0 out and the difference is greater
    than `margin`.
    """
    value, low, high = difference(Passes.of(a, "train"), Passes.of(b, "train"))
    if low > 0 and value > margin:
        return 1
    return -1 if high < 0 and -value > margin else 0
