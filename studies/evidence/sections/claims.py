"""Published claims beside what is seen here.  Each verdict follows from the data by the rule that stands beside it.

What is claimed and by which rule it is judged is declared in `claims.yaml`; `FINDERS` has the rules.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import yaml

from sdpo.report.reaching import median_over, ratios
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, last, number
from studies.evidence.measures.token_classes import BOILERPLATE, OPERATION
from studies.evidence.reaching import Passes
from studies.evidence.record import Record
from studies.evidence.sections.common import name
from studies.evidence.sections.comparison import at_least
from studies.evidence.sections.relatives import FIRST_TASK, switch_of
from studies.evidence.settings import area
from studies.evidence.spread import better, margin
from studies.markdown_table import table

REPRODUCED, NOT_REPRODUCED, NO_DIFFERENCE = "reproduced in small", "not reproduced", "no difference seen"
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
        f"ablations the measure is the {_MEASURE}, because training pass@1 saturates. Each is one run, with the "
        "learning rate that was tuned for the chosen settings. One is above another where the interval of their "
        "difference, over the training problems, leaves 0 out and the difference is greater than what two runs differ "
        f"by that have other random numbers alone ({number(margin(evidence), 3)}, from part `repeats`; 0 before it is "
        "run)."
    )
    header = ["claim", "source", "here", "seen", "rule of the verdict"]
    return Section("Published claims", f"{intro}\n\n{table(header, rows)}")


def _verdict(holds: bool) -> str:
    return REPRODUCED if holds else NOT_REPRODUCED


def _final(evidence: Evidence) -> Finding | None:
    pairs = evidence.complete_pairs("comparison")
    if not pairs:
        return None
    seen, above = [], []
    for dataset in DATASETS:
        values = {w: [last(p[a], dataset).value for a in ("sdpo", "grpo")] for w, p in pairs.items()}
        worlds = "; ".join(f"world {w}: {number(s)} / {number(g)}" for w, (s, g) in values.items())
        seen.append(f"{TITLES[dataset]} pass@1, SDPO / GRPO: {worlds}")
        above += [s > g for s, g in values.values()]
    return _verdict(all(above)), ". ".join(seen)


def _fewer(evidence: Evidence) -> Finding | None:
    pairs = evidence.complete_pairs("comparison")
    if not pairs:
        return None
    each = []
    for world, pair in pairs.items():
        slow, fast = (Passes.of(pair[a], "train") for a in ("grpo", "sdpo"))
        each.append(ratios(slow, fast, float(slow.curve[-1]), world))
    middle = median_over(each)
    at = _UNDECIDED if middle.low <= 4.0 <= middle.high else at_least(middle.value, 4.0)
    verdict = {"yes": REPRODUCED, "no": NOT_REPRODUCED}.get(at, _UNDECIDED)
    seen = ", ".join(value.text("{:.1f}") for value, _ in each)
    return verdict, f"{seen} times; median {middle.text('{:.1f}')}"


def _difficulty(evidence: Evidence) -> Finding | None:
    pairs = evidence.complete_pairs("comparison")
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


def _variants(evidence: Evidence, *variants: str) -> list[Record] | None:
    records = [evidence.variant("ablations", variant) for variant in variants]
    return None if None in records else records  # type: ignore[return-value]


def _named(variants: Sequence[str], records: Sequence[Record]) -> str:
    names = [variant.split("-", 1)[-1].replace("-", " ") for variant in variants]
    return ", ".join(f"{n} {number(area(r), 3)}" for n, r in zip(names, records, strict=True))


def _above(evidence: Evidence, pairs: Iterable[tuple[Record, Record]]) -> str:
    """The verdict on the claim that the first of each pair is above the second."""
    most = margin(evidence)
    found = [better(a, b, most) for a, b in pairs]
    return NOT_REPRODUCED if -1 in found else NO_DIFFERENCE if 0 in found else REPRODUCED


def _ordered(*variants: str) -> Callable[[Evidence], Finding | None]:
    """The variants in falling order of the measure."""

    def find(evidence: Evidence) -> Finding | None:
        records = _variants(evidence, *variants)
        if records is None:
            return None
        return _above(evidence, zip(records, records[1:], strict=False)), _named(variants, records)

    return find


def _live_is_worst(evidence: Evidence) -> Finding | None:
    variants = ("teacher-live", "teacher-frozen", "teacher-ema", "teacher-trust-region")
    records = _variants(evidence, *variants)
    if records is None:
        return None
    return _above(evidence, ((other, records[0]) for other in records[1:])), _named(variants, records)


def _live_diverges(evidence: Evidence) -> Finding | None:
    record = evidence.variant("ablations", "teacher-live")
    if record is None:
        return None
    curve = Passes.of(record, "train").curve
    seen = f"training pass@1 best {number(curve.max())}, last {number(curve[-1])}"
    return _verdict(curve[-1] < curve.max() - 0.1), seen


def _every_credit(evidence: Evidence) -> Finding | None:
    variants = ("credit-logit", "credit-token", "credit-sequence")
    records, grpo = _variants(evidence, *variants), evidence.variant("comparison", "grpo", 0)
    if records is None or grpo is None:
        return None
    verdict = _above(evidence, ((record, grpo) for record in records))
    return verdict, f"{_named(variants, records)}; GRPO {number(area(grpo), 3)}"


def _top_k(evidence: Evidence) -> Finding | None:
    variants = ("support-full", "support-top-20")
    records = _variants(evidence, *variants)
    if records is None:
        return None
    return _verdict(better(records[0], records[1], margin(evidence)) < 1), _named(variants, records)


def _mix(evidence: Evidence) -> Finding | None:
    variants = ("chosen", "mix")
    records = _variants(evidence, *variants)
    seen = "–" if records is None else _named(variants, records)
    return NOT_TESTABLE, f"one policy, so neither weak nor strong beside another; {_MEASURE}: {seen}"


def _narrower(evidence: Evidence) -> Finding | None:
    seen, falls = [], []
    for spec, record in evidence.finished("comparison"):
        if spec.algorithm == "sdpo":
            cells = []
            for metric in ("policy/entropy", "train/distinct_responses"):
                values = [y for _, y in record.curve(metric)]
                if len(values) < 20:
                    return None
                first, end = statistics.mean(values[:10]), statistics.mean(values[-10:])
                cells.append(f"{first:.2f} → {end:.2f}")
                falls.append(end < first)
            seen.append(f"world {spec.world}: {', '.join(cells)}")
    return (_verdict(all(falls)), f"nats per token, distinct share of a group, {'; '.join(seen)}") if seen else None


def _weak(evidence: Evidence) -> Finding | None:
    both = [evidence.variant("sizes", f"{algorithm}-half") for algorithm in ("sdpo", "grpo")]
    if None in both:
        return None
    values = [last(record, "train").value for record in both if record is not None]
    return _verdict(values[0] < values[1]), f"half the policy: SDPO {number(values[0])}, GRPO {number(values[1])}"


def _relatives(evidence: Evidence) -> Finding | None:
    values = {}
    for algorithm in ("srpo", "grpo", "sdpo"):
        records = [record for spec, record in evidence.finished("relatives") if spec.algorithm == algorithm]
        if len(records) < len(evidence.studies.parts["relatives"].worlds):
            return None
        values[algorithm] = statistics.mean(last(record, "held_out").value for record in records)
    holds = values["srpo"] > values["grpo"] > values["sdpo"]
    return _verdict(holds), ", ".join(f"{name(a)} {number(v)}" for a, v in values.items())


def _forgets_less(evidence: Evidence) -> Finding | None:
    runs = evidence.finished("sequence")
    if not runs or len(runs) < len(evidence.specs("sequence")):
        return None
    worlds: dict[int, dict[str, tuple[float, float]]] = {}  # learned, left at the end
    for spec, record in runs:
        curve = Passes.of(record, FIRST_TASK).curve
        learned, left = float(curve[switch_of(record, FIRST_TASK)]), float(curve[-1])
        worlds.setdefault(spec.world, {})[spec.algorithm] = learned, left
    seen, holds = [], []
    for world, found in worlds.items():
        (learned, left), (tuned, kept) = found["sdft"], found["sft"]
        seen.append(f"world {world}: {number(learned)} → {number(left)} / {number(tuned)} → {number(kept)}")
        holds.append(learned - left < tuned - kept and left >= kept)
    return _verdict(all(holds)), f"first task's held-out pass@1, SDFT / SFT: {'; '.join(seen)}"


def _style_tokens(evidence: Evidence) -> Finding | None:
    if not evidence.teacher:
        return None
    seen, above = [], []
    for run in evidence.teacher.values():
        classes = run["checkpoints"][0]["classes"]
        style, content = (classes[kind][1] / classes[kind][0] for kind in (BOILERPLATE, OPERATION))
        seen.append(f"world {run['world']}: {number(style, 3)} / {number(content, 3)}")
        above.append(style > content)
    return _verdict(all(above)), f"nats per boilerplate / operation token: {'; '.join(seen)}"


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
    "narrower": _narrower,
    "weak": _weak,
    "relatives": _relatives,
    "forgets less": _forgets_less,
    "style tokens": _style_tokens,
    "forward": _ordered("divergence-forward", "divergence-reverse"),
    "reverse": _ordered("divergence-reverse", "divergence-jsd"),
}
