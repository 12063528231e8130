"""Published claims beside what is seen here.  Each verdict follows from the data by the rule that stands beside it.

What is claimed and by which rule it is judged is declared in `claims.yaml`; `FINDERS` has the rules.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import yaml

from sdpo.evidence.evidence import Evidence
from sdpo.evidence.markdown import Section, last, number, table
from sdpo.evidence.reaching import Passes, bound, crossings
from sdpo.evidence.sections.comparison import at_least, step_seconds
from sdpo.evidence.settings import area
from sdpo.report.bounds import Bound, median, ratio

REPRODUCED, NOT_REPRODUCED = "reproduced in small", "not reproduced"
NOT_TESTABLE, NOT_RUN = "not testable here", "not run yet"
_UNDECIDED = "undecided"
_MEASURE = "mean training pass@1 over the budget"

Finding = tuple[str, str]  # verdict, what was seen; None instead: the data are not there


def section(evidence: Evidence) -> Section:
    declared = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text())
    rows = []
    for claim in declared["claims"]:
        if "untestable" in claim:
            verdict, seen = NOT_TESTABLE, claim["untestable"]
        else:
            verdict, seen = FINDERS[claim["find"]](evidence) or (NOT_RUN, "–")
        link = f"[{claim['source']}]({declared['sources'][claim['source']]})"
        rows.append([claim["claim"], link, f"**{verdict}**", seen, claim.get("rule", "–")])
    intro = (
        "Each verdict is computed from the records by the rule in the last column. The papers' numbers are from models "
        "of billions of parameters on LiveCodeBench, mathematics and science; what is seen here is a policy of 1 M "
        "parameters on problems made for the purpose, so a claim that is reproduced is reproduced in small. For the "
        f"ablations the measure is the {_MEASURE}, because training pass@1 saturates."
    )
    header = ["claim", "source", "here", "seen", "rule of the verdict"]
    return Section("Published claims", f"{intro}\n\n{table(header, rows)}")


def _verdict(holds: bool) -> str:
    return REPRODUCED if holds else NOT_REPRODUCED


def _final(evidence: Evidence) -> Finding | None:
    pairs = evidence.pairs("comparison")
    if not pairs:
        return None
    values = {w: [last(p[a], "held_out").value for a in ("sdpo", "grpo")] for w, p in pairs.items()}
    seen = "; ".join(f"world {w}: {number(s)} / {number(g)}" for w, (s, g) in values.items())
    return _verdict(all(s > g for s, g in values.values())), f"held-out pass@1, SDPO / GRPO: {seen}"


def _fewer(evidence: Evidence) -> Finding | None:
    pairs = evidence.pairs("comparison")
    if not pairs:
        return None
    times: list[Bound] = []
    for pair in pairs.values():
        slow, fast = (Passes.of(pair[a], "train") for a in ("grpo", "sdpo"))
        crossing = crossings(fast.xs, fast.curve[None], float(slow.curve[-1]))[0]
        times.append(ratio(Bound.exactly(float(slow.xs[-1])), bound(crossing, float(fast.xs[-1]))))
    middle = median(times)
    verdict = {"yes": REPRODUCED, "no": NOT_REPRODUCED}.get(at_least(middle, 4.0), _UNDECIDED)
    seen = ", ".join(value.text("{:.1f}") for value in times)
    return verdict, f"{seen} times; median {middle.text('{:.1f}')}"


def _difficulty(evidence: Evidence) -> Finding | None:
    pairs = evidence.pairs("comparison")
    if not pairs:
        return None
    gains = {}
    for level in ("easy", "medium", "hard"):
        each = [
            last(p["sdpo"], "train", 1, level).value - last(p["grpo"], "train", 1, level).value for p in pairs.values()
        ]
        gains[level] = statistics.mean(each)
    holds = gains["medium"] > gains["easy"] and gains["hard"] > gains["easy"]
    return _verdict(holds), "SDPO − GRPO: " + ", ".join(f"{level} {number(gain)}" for level, gain in gains.items())


def _areas(evidence: Evidence, *variants: str) -> list[float] | None:
    records = [evidence.variant("ablations", variant) for variant in variants]
    return None if any(record is None for record in records) else [area(record) for record in records]


def _ordered(*variants: str) -> Callable[[Evidence], Finding | None]:
    """The variants in falling order of the measure."""

    def find(evidence: Evidence) -> Finding | None:
        values = _areas(evidence, *variants)
        if values is None:
            return None
        names = [variant.split("-", 1)[1].replace("-", " ") for variant in variants]
        seen = ", ".join(f"{n} {number(v, 3)}" for n, v in zip(names, values, strict=True))
        return _verdict(all(a > b for a, b in zip(values, values[1:], strict=False))), seen

    return find


def _live_is_worst(evidence: Evidence) -> Finding | None:
    variants = ("teacher-live", "teacher-frozen", "teacher-ema", "teacher-trust-region")
    values = _areas(evidence, *variants)
    if values is None:
        return None
    seen = ", ".join(f"{v.removeprefix('teacher-')} {number(x, 3)}" for v, x in zip(variants, values, strict=True))
    return _verdict(values[0] == min(values)), seen


def _live_diverges(evidence: Evidence) -> Finding | None:
    record = evidence.variant("ablations", "teacher-live")
    if record is None:
        return None
    curve = Passes.of(record, "train").curve
    seen = f"training pass@1 best {number(curve.max())}, last {number(curve[-1])}"
    return _verdict(curve[-1] < curve.max() - 0.1), seen


def _every_credit(evidence: Evidence) -> Finding | None:
    values = _areas(evidence, "credit-logit", "credit-token", "credit-sequence")
    grpo = evidence.variant("comparison", "grpo", 0)
    if values is None or grpo is None:
        return None
    seen = ", ".join(number(v, 3) for v in values)
    return _verdict(min(values) > area(grpo)), f"logit, token, sequence: {seen}; GRPO {number(area(grpo), 3)}"


def _top_k(evidence: Evidence) -> Finding | None:
    values = _areas(evidence, "support-full", "support-top-20")
    if values is None:
        return None
    seen = f"full {number(values[0], 3)}, top 20 and tail {number(values[1], 3)}"
    return _verdict(values[1] >= values[0] - 0.02), seen


def _mix(evidence: Evidence) -> Finding | None:
    values = _areas(evidence, "chosen", "mix")
    seen = "–" if values is None else f"without {number(values[0], 3)}, with {number(values[1], 3)}"
    return NOT_TESTABLE, f"one policy, so neither weak nor strong beside another; {_MEASURE}: {seen}"


def _time(evidence: Evidence) -> Finding | None:
    pairs = evidence.pairs("comparison")
    extra = [step_seconds(p["sdpo"]) / step_seconds(p["grpo"]) - 1 for p in pairs.values()]
    extra = [value for value in extra if math.isfinite(value)]
    if not extra:
        return None
    return _verdict(statistics.median(extra) <= 0.25), ", ".join(f"{100 * value:+.0f} %" for value in extra)


def _entropy(evidence: Evidence) -> Finding | None:
    seen, falls = [], []
    for spec, record in evidence.finished("comparison"):
        values = [y for _, y in record.curve("policy/entropy")]
        if spec.algorithm == "sdpo" and len(values) >= 20:
            first, end = statistics.mean(values[:10]), statistics.mean(values[-10:])
            seen.append(f"world {spec.world}: {first:.2f} → {end:.2f}")
            falls.append(end < first)
    return (_verdict(all(falls)), f"nats per token, {'; '.join(seen)}") if seen else None


def _weak(evidence: Evidence) -> Finding | None:
    both = [evidence.variant("sizes", f"{algorithm}-half") for algorithm in ("sdpo", "grpo")]
    if None in both:
        return None
    values = [area(record) for record in both if record is not None]
    return _verdict(values[0] < values[1]), f"half the policy: SDPO {number(values[0], 3)}, GRPO {number(values[1], 3)}"


FINDERS: dict[str, Callable[[Evidence], Finding | None]] = {
    "final": _final,
    "fewer generations": _fewer,
    "difficulty": _difficulty,
    "live is worst": _live_is_worst,
    "live diverges": _live_diverges,
    "teachers": _ordered("teacher-trust-region", "teacher-ema", "teacher-frozen"),
    "contexts": _ordered("context-both", "context-sibling", "context-feedback"),
    "credit": _ordered("credit-logit", "credit-token", "credit-sequence"),
    "every credit": _every_credit,
    "top-k": _top_k,
    "mix": _mix,
    "time": _time,
    "entropy": _entropy,
    "weak": _weak,
    "forward": _ordered("divergence-forward", "divergence-reverse"),
    "reverse": _ordered("divergence-reverse", "divergence-jsd"),
}
