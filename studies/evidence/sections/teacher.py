"""What the teacher knows: its pass rate, where it disagrees, and whether it is right where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from studies.evidence.evidence import Evidence
from studies.evidence.markdown import Section, interval, number
from studies.evidence.measures.token_classes import CLASSES
from studies.evidence.pictures import BLUE, FREE, GREEN, Curve, Picture, PicturePanel
from studies.evidence.sections.common import listed
from studies.evidence.sections.forgetting import origins
from studies.evidence.token_picture import TokenPicture
from studies.markdown_table import table

TITLE = "What the teacher knows"
_FEW = 10  # problems, or failed answers
_QUESTION = (
    "At each checkpoint of the SDPO runs of the comparison: how often is the teacher right where the student is asked "
    "to learn from it, on which tokens do they disagree, and are these the wrong ones?"
)
_HOW = (
    "Student: pass rate over all its answers to the training problems; then the answers for which there is a teacher, "
    "and of these the ones that failed, with the pass rate of what the teacher answers instead. Divergence: share of "
    "the sum over tokens, and mean per token in nats, by token class (operation: what computes; name: other "
    "identifiers; boilerplate: reading, printing, keywords, the fence). Wrong: share of the tokens of the class, in "
    "failed answers, that a diff against the nearest correct program changes. A checkpoint is kept where held-out "
    "pass@1 was the best so far, and every 20 steps."
)
_AGREEMENT = (
    "Agreement: of a failed answer with m wrong tokens, the share of wrong ones among the m tokens that the teacher "
    "finds most too likely (log π − log q), and the probability that a wrong token is ranked above a right one (AUC, "
    ".5 by chance). Beside it the same for what the student itself found least likely (−log π), which needs no "
    "teacher, and by chance (m / length). Means over problems with their intervals, where there are at least "
    f"{_FEW} problems."
)


def section(evidence: Evidence) -> Section:
    if not evidence.teacher:
        return Section(TITLE, f"{_QUESTION}\n\n*Not run yet.* `make results PARTS=teacher` (after the comparison)")
    text = [_QUESTION, _summary(evidence.teacher), _rates(evidence.teacher), _HOW]
    text += [f"World {run['world']}: {run['note']}" for run in evidence.teacher.values() if "note" in run]
    text += [_agree(evidence.teacher), _AGREEMENT]
    pictures = [_picture(evidence.teacher)]
    if tokens := _examples(evidence.teacher):
        pictures.append(tokens)
    return Section(TITLE, "\n\n".join(text), pictures, origins(evidence.teacher))


def agreement(checkpoint: dict[str, Any], what: str) -> Estimate | None:
    """Mean over problems of a column of "agreement"; None where too few problems have a failed answer to compare."""
    by_problem: dict[str, list[float]] = {}
    for problem, value in zip(checkpoint["agreement"]["problem"], checkpoint["agreement"][what], strict=True):
        by_problem.setdefault(problem, []).append(value)
    if len(by_problem) < _FEW:
        return None
    return bootstrap_mean([float(np.mean(values)) for values in by_problem.values()])


def _summary(runs: dict[str, dict[str, Any]]) -> str:
    """In words: how the teacher does on failed answers, first and as long as there are enough of them."""
    sentences = []
    for run in runs.values():
        rated = [c for c in run["checkpoints"] if c["with_context"]["failed"][0] >= _FEW]
        ends = [
            f"{number(c['with_context']['failed'][2])} of {c['with_context']['failed'][0]} at step {c['step']}"
            for c in (rated[0], rated[-1])
        ]
        sentences.append(f"world {run['world']}: {' → '.join(ends)}")
    shares = [number(_share(run["checkpoints"][0], "operation")) for run in runs.values()]
    return (
        "**Where the student failed and there is a teacher, the teacher is right in this share of the answers, before "
        f"training and at the last checkpoint with at least {_FEW} of them: {'; '.join(sentences)}. Before training "
        f"{listed(shares)} of the divergence lies on operation tokens.{_where(runs)}**"
    )


def _where(runs: dict[str, dict[str, Any]]) -> str:
    """Whether the teacher finds the wrong tokens better than the student's own surprise does."""
    cells = []
    for run in runs.values():
        found = [agreement(run["checkpoints"][0], what) for what in ("precision", "own_precision", "auc", "own_auc")]
        if None in found:
            return ""
        teacher, own, auc, own_auc = (number(estimate.value) for estimate in found if estimate is not None)
        cells.append(f"{teacher} / {own}, AUC {auc} / {own_auc}")
    return (
        " As for which tokens are wrong, before training, the teacher / the student's own surprise find "
        f"{'; '.join(cells)}: the student knows where it guessed. Where its surprise does as well, what hindsight adds "
        "is not the place but what should stand there."
    )


def _share(checkpoint: dict[str, Any], kind: str) -> float:
    total = sum(row[1] for row in checkpoint["classes"].values())
    return checkpoint["classes"][kind][1] / total if total else 0.0


def _rates(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for run in runs.values():
        for checkpoint in run["checkpoints"]:
            (n, student, teacher), (failed, _, instead) = (checkpoint["with_context"][k] for k in ("all", "failed"))
            row = [run["world"], checkpoint["step"], number(checkpoint["student"])]
            row += [f"{number(student)} → {number(teacher)} ({n})", f"{number(instead)} ({failed})" if failed else "–"]
            for kind in CLASSES:
                tokens, total, in_failed, wrong = checkpoint["classes"][kind]
                mean, share = total / tokens if tokens else 0.0, number(wrong / in_failed) if in_failed else "–"
                row.append(f"{number(_share(checkpoint, kind))} ({number(mean)}; wrong {share})")
            rows.append(row)
    header = ["world", "step", "student", "with a teacher: student → teacher (answers)", "failed: teacher (answers)"]
    return table([*header, *(f"divergence, {kind}" for kind in CLASSES)], rows)


def _agree(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for run in runs.values():
        for checkpoint in run["checkpoints"]:
            cells = [agreement(checkpoint, what) for what in ("precision", "own_precision", "chance", "auc", "own_auc")]
            if cells[0] is not None:
                problems = len(set(checkpoint["agreement"]["problem"]))
                rows.append([run["world"], checkpoint["step"], problems, *map(interval, cells)])
    return table(["world", "step", "problems", "agreement", "the student's own", "by chance", "AUC", "its own"], rows)


def _picture(runs: dict[str, dict[str, Any]]) -> Picture:
    """A panel of rates and one of agreement with a line for each world, and the divergence of each world."""
    rates, agree, divergences = [], [], []
    for i, run in enumerate(runs.values()):
        checkpoints = run["checkpoints"]
        failed = [c["with_context"]["failed"] for c in checkpoints]
        taught = [rate if n >= _FEW else None for n, _, rate in failed]
        lines = [_line("teacher, where the student failed", GREEN, checkpoints, taught)]
        lines += [_line("student", BLUE, checkpoints, [c["student"] for c in checkpoints], dashed=True)]
        rates += _labelled(lines, i == 0)
        estimates = {what: [agreement(c, what) for c in checkpoints] for _, what, _ in _RANKINGS}
        values = {what: [None if e is None else e.value for e in found] for what, found in estimates.items()}
        lines = [_line(t, colour, checkpoints, values[what], what == "chance") for t, what, colour in _RANKINGS]
        agree += _labelled(lines, i == 0)
        shares = [
            _line(kind, colour, checkpoints, [_share(c, kind) for c in checkpoints])
            for kind, colour in zip(CLASSES, FREE, strict=False)
        ]
        divergences.append(PicturePanel(f"share of the divergence, world {run['world']}", "step", "share", shares))
    panels = [
        PicturePanel("pass rates", "step", "pass rate", rates),
        PicturePanel("wrong tokens among the highest ranked", "step", "share", agree),
        *divergences,
    ]
    caption = f"One line per world in the first two panels, as long as there are {_FEW} failed answers or problems."
    return Picture("teacher", TITLE, caption, panels, 3)


_RANKINGS = (
    ("ranked by the teacher", "precision", GREEN),
    ("by the student itself", "own_precision", BLUE),
    ("by chance", "chance", "#999999"),
)


def _line(
    title: str, colour: str, checkpoints: Sequence[dict[str, Any]], values: Sequence[float | None], dashed: bool = False
) -> Curve:
    steps = [c["step"] for c in checkpoints]
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    return Curve(title, points, colour, dashed=dashed)


def _labelled(lines: Sequence[Curve], shown: bool) -> list[Curve]:
    """Those that have points; in the legend or not."""
    return [replace(line, label=line.label if shown else "") for line in lines if line.points]


def _examples(runs: dict[str, dict[str, Any]]) -> TokenPicture | None:
    """Failed answers, token by token, from the first checkpoint after step 0 that has any."""
    for run in runs.values():
        for checkpoint in run["checkpoints"][1:] + run["checkpoints"][:1]:
            if checkpoint["examples"]:
                caption = (
                    "Failed answers of the student, token by token. Redder: the teacher finds the token less likely "
                    "than the student does; bluer: likelier (log π − log q; the colour is full at 4 nats). Underlined: "
                    f"what a diff against the nearest correct program changes. World {run['world']}, step "
                    f"{checkpoint['step']}; the first ones, not chosen by hand."
                )
                return TokenPicture("teacher_tokens", "Tokens", caption, checkpoint["examples"])
    return None
