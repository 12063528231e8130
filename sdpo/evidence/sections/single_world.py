"""Sections of one shape: the runs of a part beside each other, in a table and a figure."""

from __future__ import annotations

from sdpo.evidence.evidence import Evidence
from sdpo.evidence.markdown import Section, number
from sdpo.evidence.pictures import COLOURS, FREE, Panel, Picture
from sdpo.evidence.record import Record
from sdpo.evidence.sections.common import (
    OUTCOME_NOTE,
    SOLID,
    Named,
    curve,
    dataset_panels,
    group_panel,
    name,
    not_run,
    opening,
    outcome_table,
)
from sdpo.evidence.settings import area
from sdpo.report.figures import GENERATIONS

_GROUPS = ("teacher", "context", "credit", "divergence", "support", "mix")


def ablations(evidence: Evidence) -> Section:
    runs = evidence.finished("ablations")
    chosen = evidence.variant("ablations", "chosen")
    if not runs or chosen is None:
        return not_run(evidence, "ablations")
    panels, named = [], [("chosen settings", chosen)]
    for group in _GROUPS:
        own = [(_label(spec.label, record, chosen), record) for spec, record in runs if spec.group == group]
        if not any(record is chosen for _, record in own):
            own = [("chosen settings", chosen), *own]
        panels.append(group_panel(group, own))
        named += [(f"{group}: {label}", record) for label, record in own if label != "chosen settings"]
    caption = (
        f"One change each against the chosen settings, world 0. {SOLID} Token and sequence credit are defined for "
    )
    caption += "the reverse KL, so logit credit stands beside them with the reverse KL too."
    text = [opening(evidence, "ablations"), outcome_table(named), OUTCOME_NOTE]
    picture = Picture("ablations", "Ablations", caption, panels, 3)
    return Section(evidence.studies.parts["ablations"].title, "\n\n".join(text), [picture], [r for _, r in runs])


def _label(label: str, record: Record, chosen: Record) -> str:
    return f"{label} (chosen)" if record is chosen else label


def noise(evidence: Evidence) -> Section:
    baseline = evidence.variant("comparison", "grpo", 0)
    return _beside(evidence, "noise", [("GRPO", baseline)] if baseline else [], "SDPO, {}")


def limits(evidence: Evidence) -> Section:
    made = _beside(evidence, "limits")
    if not made.runs:
        return made
    rows = []
    for spec, record in evidence.finished("limits"):
        taught = record.curve("train/taught_fraction")
        if spec.algorithm == "sdpo" and taught:
            share = [sum(y for _, y in part) / len(part) for part in (taught[:10], taught[-10:])]
            rows.append(f"{spec.label}: {number(share[0])} → {number(share[1])}")
    why = "Why: SDPO learns from a response only where its teacher is told something. Share of responses with a teacher"
    text = f"{made.text}\n\n{why}, mean of the first → last ten steps: {'; '.join(rows)}."
    return Section(made.title, f"{text}\n\n{_as_good(evidence)}", made.pictures, made.runs)


def _as_good(evidence: Evidence) -> str:
    """The settings in which GRPO reaches a greater mean training pass@1 than SDPO."""
    grpo = evidence.variant("limits", "grpo")
    if grpo is None:
        return ""
    weaker = [s.label for s, r in evidence.finished("limits") if s.algorithm == "sdpo" and area(r) <= area(grpo)]
    if not weaker:
        return "GRPO's mean training pass@1 over the budget is below that of every SDPO run shown here."
    return f"GRPO's mean training pass@1 over the budget is at least as great as that of: {'; '.join(weaker)}."


def sizes(evidence: Evidence) -> Section:
    return _beside(evidence, "sizes", label_with_algorithm=True)


def groups(evidence: Evidence) -> Section:
    runs = evidence.finished("groups")
    if not runs:
        return not_run(evidence, "groups")
    panels = []
    for algorithm in ("sdpo", "grpo"):
        own = [(f"{spec.label} responses", record) for spec, record in runs if spec.algorithm == algorithm]
        if own:
            panels.append(group_panel(name(algorithm), own))
    named = [(f"{name(spec.algorithm)}, {spec.label} responses", record) for spec, record in runs]
    text = [opening(evidence, "groups"), outcome_table(named), OUTCOME_NOTE]
    picture = Picture("groups", "Responses per problem", f"64 samples per step in all, world 0. {SOLID}", panels)
    return Section(evidence.studies.parts["groups"].title, "\n\n".join(text), [picture], [r for _, r in runs])


def longer(evidence: Evidence) -> Section:
    runs = evidence.finished("longer")
    if not runs:
        return not_run(evidence, "longer")
    panels, named = [], []
    for spec, record in runs:
        pair: list[tuple[str, Record]] = [("GRPO", record)]
        if sdpo := evidence.variant("comparison", "sdpo", spec.world):
            pair.insert(0, ("SDPO", sdpo))
        curves = []
        for label, member in pair:
            colour = COLOURS[label.lower()]
            curves.append(curve(member, "train", label, colour))
            curves.append(curve(member, "held_out", "", colour, dashed=True, thin=True))
        panels.append(Panel(f"world {spec.world}", GENERATIONS, "pass@1", curves))
        named += [(f"{label}, world {spec.world}", member) for label, member in pair]
    text = [opening(evidence, "longer"), outcome_table(named), OUTCOME_NOTE]
    picture = Picture("longer", "A longer budget for GRPO", f"SDPO with its own budget beside it. {SOLID}", panels, 3)
    return Section(evidence.studies.parts["longer"].title, "\n\n".join(text), [picture], [r for _, r in runs])


def _beside(
    evidence: Evidence, part: str, baseline: Named = (), form: str = "{}", label_with_algorithm: bool = False
) -> Section:
    runs = evidence.finished(part)
    if not runs:
        return not_run(evidence, part)
    named = [*baseline]
    for spec, record in runs:
        label = f"{name(spec.algorithm)}, {spec.label}" if label_with_algorithm else form.format(spec.label)
        named.append((label, record))
    free = iter([colour for colour in FREE if colour != COLOURS["grpo"]] * 3)
    colours = {label: COLOURS["grpo"] if label == "GRPO" else next(free) for label, _ in named}
    text = [opening(evidence, part), outcome_table(named), OUTCOME_NOTE]
    title = evidence.studies.parts[part].title
    picture = Picture(part, title, "pass@1 against generations, world 0.", dataset_panels(named, colours))
    return Section(title, "\n\n".join(text), [picture], [record for _, record in named])
