"""Alarms: when a run fell, when that was noticed, and what came of a rollback."""

from __future__ import annotations

from itertools import takewhile
from statistics import fmean

from sdpo.report.figures import GENERATIONS
from sdpo.training.alarms import FALL, PASS_RATE, WINDOW, alarms
from studies.evidence.evidence import Evidence
from studies.evidence.markdown import Section, interval, last, number
from studies.evidence.pictures import FREE, Picture, PicturePanel
from studies.evidence.record import Record
from studies.evidence.sections.common import curve, not_run, opening
from studies.evidence.studies import AGAIN, RunSpec
from studies.markdown_table import table

_HEADER = ["", "status", "fell at step", "alarms", "rollbacks", "probe gap, first → last", "training pass@1, last"]
_READ = (
    f"*Fell* is the first step from which the training pass rate, averaged over {WINDOW} steps, stays below half of "
    "its best. Alarms are those of [the guards' rules](../../guards.md#alarms), each with the step after which it was "
    "raised first. The gap is the pass rate of the teacher with its hints minus the policy's. A run that was taken "
    "back has only the steps that it kept."
)


def section(evidence: Evidence) -> Section:
    found = [(spec, evidence.index.get(spec.id)) for spec in evidence.specs("guards")]
    runs = [(spec, record) for spec, record in found if record is not None]
    if not runs:
        return not_run(evidence, "guards")
    title = evidence.studies.parts["guards"].title
    rows = [_row(spec, record) for spec, record in runs]
    harmed = [(spec.label, record) for spec, record in runs if spec.group != AGAIN and "train" in record.problems]
    curves = [curve(record, "train", label, FREE[i % len(FREE)]) for i, (label, record) in enumerate(harmed)]
    panels = [PicturePanel("training problems", GENERATIONS, "pass@1", curves)] if curves else []
    pictures = [Picture("guards", title, "The runs that go wrong.", panels)] if panels else []
    text = [opening(evidence, "guards"), _unneeded(runs), table(_HEADER, rows), _READ]
    return Section(title, "\n\n".join(filter(None, text)), pictures, [record for _, record in runs])


def _row(spec: RunSpec, record: Record) -> list[object]:
    rollbacks, gaps = (record.curve(key, "step") for key in ("guard/rollbacks", "probe/gap"))
    return [
        spec.label,
        record.status,
        fell_at(record) or "–",
        "; ".join(f"{rule}: {step}" for rule, step in raised(record).items()) or "none",
        int(rollbacks[-1][1]) if rollbacks else "–",
        f"{number(gaps[0][1])} → {number(gaps[-1][1])}" if gaps else "–",
        interval(last(record, "train")) if "train" in record.problems else "–",
    ]


def _unneeded(runs: list[tuple[RunSpec, Record]]) -> str:
    again = [record for spec, record in runs if spec.group == AGAIN]
    alarmed = sum(bool(raised(record)) for record in again)
    return f"**Of {len(again)} runs that were drawn, {alarmed or 'none'} raised an alarm.**" if again else ""


def raised(record: Record) -> dict[str, int]:
    """Rule → the step after which it raised an alarm for the first time."""
    rows = [{key: column[i] for key, column in record.train.items()} for i in range(len(record.train["step"]))]
    found: dict[str, int] = {}
    for end in range(1, len(rows) + 1):
        for alarm in alarms(rows[:end]):
            found.setdefault(alarm.rule, rows[end - 1]["step"])
    return found


def fell_at(record: Record) -> int | None:
    """The first step from which the mean pass rate stays below half of the best until then; None: there is none."""
    rates = record.curve(PASS_RATE, "step")
    means = [fmean(rate for _, rate in rates[end - WINDOW : end]) for end in range(WINDOW, len(rates) + 1)]
    low = [mean < FALL * max(means[: i + 1]) for i, mean in enumerate(means)]
    length = len(list(takewhile(bool, reversed(low))))
    return int(rates[-length][0]) if length else None
