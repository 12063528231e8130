"""Sections of one shape: the runs of a part beside each other, in a table and a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.evidence.evidence import Evidence
from studies.evidence.markdown import Section, number
from studies.evidence.pictures import COLOURS, FREE, Picture
from studies.evidence.record import Record
from studies.evidence.sections.common import (
    OUTCOME_NOTE,
    SOLID,
    Named,
    dataset_panels,
    group_panel,
    name,
    not_run,
    opening,
    outcome_table,
    pair_panel,
)
from studies.evidence.sections.comparison import AT, world_ratio
from studies.evidence.settings import area
from studies.evidence.spread import better, margin
from studies.markdown_table import table

_GROUPS = ("teacher", "context", "credit", "divergence", "support", "mix")


def ablations(evidence: Evidence) -> Section:
    runs = evidence.finished("ablations")
    chosen = evidence.variant("ablations", "chosen")
    if not runs or chosen is None:
        return not_run(evidence, "ablations")
    panels, named = [], [("chosen settings", chosen)]
    for group in _GROUPS:
        own = [(_label(spec.label, record, chosen), record) for spec, record in runs if spec.group == group]
        if all(record is chosen for _, record in own):
            continue
        if not any(record is chosen for _, record in own):
            own = [("chosen settings", chosen), *own]
        panels.append(group_panel(group, own))
        named += [(f"{group}: {label}", record) for label, record in own if label != "chosen settings"]
    caption = (
        f"One change each against the chosen settings, world 0. {SOLID} Token and sequence credit are defined for "
    )
    caption += "the reverse KL, so logit credit stands beside them with the reverse KL too."
    text = [opening(evidence, "ablations"), outcome_table(named), OUTCOME_NOTE]
    pictures = [Picture("ablations", "Ablations", caption, panels, 3)] if panels else []
    return Section(evidence.studies.parts["ablations"].title, "\n\n".join(text), pictures, [r for _, r in runs])


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
        curves = [[y for _, y in record.curve(metric)] for metric in _NARROWING]
        if all(len(values) > 10 for values in curves):
            taught, successes, entropy = curves
            cells = [_means(taught[:10], taught[-10:]), _means(successes[:10], successes[-10:])]
            rows.append([spec.label, *cells, _means(entropy[:10], entropy[10:20], entropy[-10:])])
    header = ["", "responses with a teacher", "groups with a success", "entropy, nats per token"]
    shares = (
        "Shares of the training batches, mean of the first → last ten steps; entropy, first → second → last ten:\n\n"
        + table(header, rows)
    )
    return Section(made.title, "\n\n".join([made.text, as_good(evidence), shares, _WHY]), made.pictures, made.runs)


_NARROWING = ("train/taught_fraction", "train/groups_with_success", "policy/entropy")
_WHY = (
    "How this is read: without feedback only a group that holds a success has a teacher. Its questions are learned at "
    "once, the policy narrows on what it was shown, and finds few further successes; GRPO moves more slowly and keeps "
    "trying. A teacher that is told another question's failure is told something false; a reward is never false."
)


def _means(*parts: Sequence[float]) -> str:
    return " → ".join(number(statistics.mean(part)) for part in parts)


def as_good(evidence: Evidence) -> str:
    """The settings, of this part and of the ablations, in which GRPO's mean training pass@1 is as good or better."""
    grpo = evidence.variant("limits", "grpo")
    if grpo is None:
        return ""
    named = [(s.label.removeprefix("SDPO, "), r) for s, r in evidence.finished("limits") if s.algorithm == "sdpo"]
    known = {id(record) for _, record in named}
    ablations = [(f"{s.group}: {s.label}", r) for s, r in evidence.finished("ablations") if id(r) not in known]
    told, most = {-1: [], 0: [], 1: []}, margin(evidence)
    for label, record in named + ablations:
        told[better(record, grpo, most)].append(f"{label} ({number(area(record))})")
    parts = [f"above SDPO with {'; '.join(told[-1])}"] if told[-1] else []
    parts += [f"indistinguishable from SDPO with {'; '.join(told[0])}"] if told[0] else []
    if not parts:
        return "GRPO's mean training pass@1 over the budget is below that of every SDPO run on world 0."
    return (
        f"**GRPO's mean training pass@1 over the budget, {number(area(grpo))}, is {', and '.join(parts)}** (world 0, "
        "this part and the ablations; by the rule that stands with the published claims)."
    )


def combined(evidence: Evidence) -> Section:
    return _beside(evidence, "combined", label_with_algorithm=True)


def sizes(evidence: Evidence) -> Section:
    return _beside(evidence, "sizes", label_with_algorithm=True)


def opsd_again(evidence: Evidence) -> Section:
    made = _beside(evidence, "opsd-again", form="OPSD, {}")
    if not made.runs:
        return made
    rows = []
    for spec, record in evidence.finished("opsd-again"):
        curves = ([y for _, y in record.curve(metric)][:10] for metric in CLIPPED)
        rows.append([spec.label, *(number(statistics.mean(values), 3) for values in curves)])
    header = ["", "teacher's entropy, nats per token", "student's", "norm of the gradient"]
    first = f"Means over the first ten steps:\n\n{table(header, rows)}"
    return Section(made.title, f"{made.text}\n\n{first}", made.pictures, made.runs)


CLIPPED = ("distillation/teacher_entropy", "policy/entropy", "learner/grad_norm")


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
    text = [opening(evidence, "groups"), same_groups(evidence), outcome_table(named), OUTCOME_NOTE]
    picture = Picture("groups", "Responses per problem", f"64 samples per step in all, world 0. {SOLID}", panels)
    return Section(evidence.studies.parts["groups"].title, "\n\n".join(text), [picture], [r for _, r in runs])


def same_groups(evidence: Evidence) -> str:
    """GRPO's generations by SDPO's where both have groups of the same size."""
    by_size: dict[str, dict[str, Record]] = {}
    for spec, record in evidence.finished("groups"):
        by_size.setdefault(spec.label, {})[spec.algorithm] = record
    cells = [f"{size}: {world_ratio(pair, AT).text('{:.1f}')}" for size, pair in by_size.items() if len(pair) == 2]
    if not cells:
        return ""
    return (
        f"**Generations to training pass@1 {AT:g}, GRPO's by SDPO's, with the same number of responses per problem for "
        f"both: {'; '.join(cells)}.**"
    )


def longer(evidence: Evidence) -> Section:
    runs = evidence.finished("longer")
    if not runs:
        return not_run(evidence, "longer")
    panels, named = [], []
    for spec, record in runs:
        sdpo = evidence.variant("comparison", "sdpo", spec.world)
        pair = {"grpo": record} if sdpo is None else {"sdpo": sdpo, "grpo": record}
        panels.append(pair_panel(f"world {spec.world}", pair))
        named += [(f"{name(algorithm)}, world {spec.world}", member) for algorithm, member in pair.items()]
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
