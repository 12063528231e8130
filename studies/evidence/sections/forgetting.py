"""What is lost, and what the policy could do before anything was learned."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from sdpo.evaluation.passk import pass_at_k
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Origin, Section, interval, last, number
from studies.evidence.measures.parts import BEFORE, BESIDE
from studies.evidence.pictures import COLOURS, Bar, Picture, PicturePanel
from studies.evidence.sections.common import name
from studies.markdown_table import table

TITLE = "What is lost"
_CONDITIONS = ("first try", "with feedback", "with solution", "known words")
_FAMILIES = {"minicode": "lists", "minicode-texts": "texts"}
_QUESTION = (
    "Skills before and after training, on worlds that no run was trained on (101, 102, 103) and in both families of "
    "problems; and on the run's own world, 8 programs per problem, what became of their diversity."
)


def section(evidence: Evidence) -> Section:
    before, after = evidence.skills.get(BEFORE), _after(evidence)
    if before is None or not after:
        return Section(TITLE, f"{_QUESTION}\n\n*Not run yet.* `make results PARTS=forgetting` (after the comparison)")
    policies = {BEFORE: before, **after}
    compared = {key: policy for key, policy in after.items() if key not in BESIDE}
    text = [_QUESTION, _summary(before, after), _skills_text(policies), _diversity_text(before, after)]
    text.append(_entropy_text(evidence))
    return Section(TITLE, "\n\n".join(filter(None, text)), [_picture(before, compared)], origins(policies))


def _summary(before: dict[str, Any], after: dict[str, dict[str, Any]]) -> str:
    """In words: the loss of the skills that were not trained, and what the methods differ in besides."""
    parts = []
    for algorithm in ("sdpo", "grpo"):
        cells = []
        for family, title in _FAMILIES.items():
            for condition in ("with feedback", "with solution"):
                first = number(skill(before, family, condition).value)
                cells.append(f"{title} {condition} {first} → {_ends(after, algorithm, family, condition)}")
        parts.append(f"{name(algorithm)}: {', '.join(cells)}")
    text = f"**On other worlds, before training → at the end of the runs: {'; '.join(parts)}.**"
    if set(BESIDE) <= set(after):
        text += (
            " The chosen GRPO settings keep the policy near the initial one with a KL penalty, and SDPO's training "
            "pass@1 is higher at the end. So GRPO without the penalty (the recipe's own settings) and SDPO after 20 "
            "steps are in the tables as well."
        )
    return text


def in_short(evidence: Evidence) -> str:
    """What becomes of one skill, in one sentence."""
    before, after = evidence.skills.get(BEFORE), _after(evidence)
    if before is None or not after:
        return ""
    what = ("minicode", "with solution")
    first, sdpo, grpo = number(skill(before, *what).value), _ends(after, "sdpo", *what), _ends(after, "grpo", *what)
    return (
        f"Forgetting: shown a correct solution, the policy solves other worlds' problems in {first} of the cases "
        f"before training, in {sdpo} after SDPO, in {grpo} after GRPO."
    )


def _ends(after: dict[str, dict[str, Any]], algorithm: str, family: str, condition: str) -> str:
    """Least and greatest pass rate at the end of the comparison's runs of a method."""
    own = [p for key, p in after.items() if p["algorithm"] == algorithm and key not in BESIDE]
    values = [skill(policy, family, condition).value for policy in own]
    return f"{number(min(values))} to {number(max(values))}" if values else "–"


def origins(measured: dict[str, dict[str, Any]]) -> list[Origin]:
    """Where measurements were made."""
    return [Origin(content["hardware"], [content["commit"]]) for content in measured.values()]


def _after(evidence: Evidence) -> dict[str, dict[str, Any]]:
    found = {key: value for key, value in evidence.skills.items() if key != BEFORE}
    return dict(sorted(found.items(), key=lambda item: (item[1]["algorithm"] != "sdpo", item[0])))


def skill(policy: dict[str, Any], family: str, condition: str) -> Estimate:
    """Pass rate on other worlds, mean over problems."""
    counts = policy["other"][family][condition]
    return bootstrap_mean(np.array(counts["passed"]) / np.array(counts["n"]))


def own(policy: dict[str, Any], world: int | str, dataset: str, what: str) -> float:
    """On a world of the policy's own: "pass@1", "pass@8", "spread" (their difference), or "distinct" programs of 8."""
    counts, n = policy["own"][str(world)][dataset], policy["samples"]
    if what == "distinct":
        return statistics.mean(counts["distinct"])
    if what == "spread":
        return own(policy, world, dataset, f"pass@{n}") - own(policy, world, dataset, "pass@1")
    return float(pass_at_k(n, np.array(counts["passed"]), int(what.split("@")[1])).mean())


def _skills_text(policies: dict[str, dict[str, Any]]) -> str:
    columns = [(family, condition) for family in _FAMILIES for condition in _CONDITIONS]
    rows = [[label(key), *(interval(skill(p, *column)) for column in columns)] for key, p in policies.items()]
    header = ["", *(f"{_FAMILIES[family]}: {condition}" for family, condition in columns)]
    return f"Pass rates on worlds that no run was trained on:\n\n{table(header, rows)}"


def _diversity_text(before: dict[str, Any], after: dict[str, dict[str, Any]]) -> str:
    n = before["samples"]
    measures = ("pass@1", f"pass@{n}", "spread", "distinct")
    rows = []
    for key, policy in after.items():
        for dataset in DATASETS:
            (world,) = policy["own"]
            cells = []
            for what in measures:
                digits = 1 if what == "distinct" else 2
                values = [own(p, world, dataset, what) for p in (before, policy)]
                cells.append(" → ".join(number(v, digits) for v in values))
            rows.append([label(key), TITLES[dataset], *cells])
    header = ["", "problems", "pass@1", f"pass@{n}", f"pass@{n} − pass@1", f"distinct programs of {n}"]
    return f"On the run's own world, before → after:\n\n{table(header, rows)}"


def _entropy_text(evidence: Evidence) -> str:
    rows = []
    for spec, record in evidence.finished("comparison"):
        row = [f"{name(spec.algorithm)}, world {spec.world}"]
        n = record.settings["rollout"]["responses"]
        for metric, scale in (("policy/entropy", 1), ("response/length_mean", 1), ("train/distinct_responses", n)):
            values = [scale * y for _, y in record.curve(metric)]
            if len(values) < 2:
                return ""
            row.append(f"{statistics.mean(values[:10]):.2f} → {statistics.mean(values[-10:]):.2f}")
        row[-1] += f" of {n}"
        rows.append(row)
    header = ["", "entropy, nats per token", "response length, tokens", "distinct responses of a group"]
    return f"In the training batches, mean of the first → last ten steps:\n\n{table(header, rows)}"


def _picture(before: dict[str, Any], after: dict[str, dict[str, Any]]) -> Picture:
    groups = {"before": [before]}
    for algorithm in ("sdpo", "grpo"):
        if members := [policy for policy in after.values() if policy["algorithm"] == algorithm]:
            groups[algorithm] = members
    panels = []
    for family, title in _FAMILIES.items():
        bars = [
            Bar(condition, *_range([skill(p, family, condition).value for p in members], series))
            for condition in _CONDITIONS
            for series, members in groups.items()
        ]
        panels.append(PicturePanel(f"{title}, other worlds", "", "pass rate", bars=bars))
    spread, distinct = (_own_bars(groups, after, what) for what in ("spread", "distinct"))
    n = before["samples"]
    panels.append(PicturePanel(f"own world: pass@{n} − pass@1", "", "difference", bars=spread, y_limits=(None, None)))
    panels.append(PicturePanel(f"own world: distinct programs of {n}", "", "programs", bars=distinct, y_limits=(0, n)))
    caption = (
        "Bars: mean over the runs of the comparison; lines: least and greatest. Other worlds: ones that no run was "
        "trained on."
    )
    return Picture("forgetting", TITLE, caption, panels)


def _own_bars(groups: dict[str, list[dict[str, Any]]], after: dict[str, dict[str, Any]], what: str) -> list[Bar]:
    worlds = sorted({world for policy in after.values() for world in policy["own"]})
    bars = []
    for dataset in DATASETS:
        for series, members in groups.items():
            values = [own(p, w, dataset, what) for p in members for w in (worlds if series == "before" else p["own"])]
            bars.append(Bar(f"{TITLES[dataset]} problems", *_range(values, series)))
    return bars


def _range(values: Sequence[float], series: str) -> tuple[float, str, float, float, str]:
    colour = COLOURS.get(series, "#999999")
    return statistics.mean(values), colour, min(values), max(values), name(series)


def label(key: str) -> str:
    """sdpo-world1 → "SDPO, world 1"; sdpo-world0-step20 → "SDPO, world 0, step 20"."""
    if key == BEFORE:
        return "before training"
    algorithm, _, world = key.partition("-world")
    world, _, which = world.partition("-")
    return ", ".join(filter(None, [name(algorithm), f"world {world}", _WHICH.get(which, "")]))


_WHICH = {"recipe": "recipe's settings", "step20": "step 20"}


def ceiling(evidence: Evidence) -> str:
    """What the policy can do when it is told, before any training, and what it learns from correct programs alone."""
    before = evidence.skills.get(BEFORE)
    if before is None:
        return "The supervised ceiling is measured by `make results PARTS=forgetting`, which is not run yet."
    rows = []
    for world, counts in before["own"].items():
        tuned = evidence.variant("relatives", "sft", int(world))
        learned = ["–" if tuned is None else interval(last(tuned, dataset)) for dataset in DATASETS]
        rows.append([world, *(interval(_condition(counts, c)) for c in _CONDITIONS[:3]), *learned])
    header = ["world", *_CONDITIONS[:3], *(f"fine-tuned: {TITLES[dataset]}" for dataset in DATASETS)]
    return (
        "The supervised ceiling: pass rates of the policy before training on these problems (training and held-out "
        "ones together), when it is told nothing, the feedback on its failed first try, and a correct solution; and "
        "pass@1 at the end of fine-tuning on the training problems' reference programs (part relatives):\n\n"
        + table(header, rows)
    )


def _condition(counts: dict[str, Any], condition: str) -> Estimate:
    row = counts["conditions"][condition]
    return bootstrap_mean(np.array(row["passed"]) / np.array(row["n"]))
