"""What the teacher knows: its pass rate, where it disagrees, and whether it is right where it does."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdpo.evaluation.bootstrap import Estimate, bootstrap_mean
from sdpo.evidence.evidence import Evidence
from sdpo.evidence.markdown import Section, interval, number, table
from sdpo.evidence.measures.token_classes import CLASSES
from sdpo.evidence.pictures import BLUE, FREE, GREEN, Bar, Curve, Panel, Picture
from sdpo.evidence.sections.common import listed
from sdpo.evidence.sections.forgetting import origins
from sdpo.evidence.token_picture import TokenPicture

TITLE = "What the teacher knows"
_QUESTION = (
    "At each checkpoint of the SDPO runs of the comparison: how often is the teacher right where the student is asked "
    "to learn from it, on which tokens do they disagree, and are these the wrong ones?"
)
_HOW = (
    "Student: pass rate over all its answers to the training problems; the next two columns are about the answers for "
    "which there is a teacher. Divergence: share of the sum over tokens, and mean per token in nats, by token class "
    "(operation: what computes; name: other identifiers; boilerplate: reading, printing, keywords, the fence). Wrong: "
    "share of the tokens of the class that a diff against the nearest correct program changes, in failed answers."
)
_AGREEMENT = (
    "Agreement: of a failed answer with m wrong tokens, the share of wrong ones among the m tokens that the teacher "
    "finds most too likely (log π − log q), the same by chance (m / length), and the probability that a wrong token is "
    "ranked above a right one (AUC, .5 by chance); means over problems with their intervals."
)


def section(evidence: Evidence) -> Section:
    if not evidence.teacher:
        return Section(TITLE, f"{_QUESTION}\n\n*Not run yet.* `make results PARTS=teacher` (after the comparison)")
    text = [_QUESTION, _summary(evidence.teacher), _rates(evidence.teacher), _HOW, _agree(evidence.teacher), _AGREEMENT]
    pictures = [_picture(evidence.teacher)]
    if tokens := _examples(evidence.teacher):
        pictures.append(tokens)
    return Section(TITLE, "\n\n".join(text), pictures, origins(evidence.teacher))


def agreement(checkpoint: dict[str, Any], what: str) -> Estimate | None:
    """Mean over problems of "precision", "chance" or "auc"; None where no failed answer could be compared."""
    by_problem: dict[str, list[float]] = {}
    for problem, value in zip(checkpoint["agreement"]["problem"], checkpoint["agreement"][what], strict=True):
        by_problem.setdefault(problem, []).append(value)
    return bootstrap_mean([float(np.mean(values)) for values in by_problem.values()]) if by_problem else None


def _summary(runs: dict[str, dict[str, Any]]) -> str:
    """In words: the first and the last checkpoint, over all runs."""
    gaps = []
    for index in (0, -1):
        rates = [run["checkpoints"][index]["with_context"]["all"] for run in runs.values()]
        gaps.append([float(np.mean([row[i] for row in rates])) for i in (1, 2)])
    worlds = [run["world"] for run in runs.values()]
    share = [_share(run["checkpoints"][0], "operation") for run in runs.values()]
    return (
        f"**Before training the teacher is right in {number(gaps[0][1])} of the cases that it teaches (the student in "
        f"{number(gaps[0][0])}); at the end in {number(gaps[1][1])} (the student in {number(gaps[1][0])}). Before "
        f"training {number(float(np.mean(share)))} of the divergence lies on operation tokens.** "
        f"Means over {listed(f'world {world}' for world in worlds)}."
    )


def _share(checkpoint: dict[str, Any], kind: str) -> float:
    total = sum(row[1] for row in checkpoint["classes"].values())
    return checkpoint["classes"][kind][1] / total if total else 0.0


def _rates(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for run in runs.values():
        for checkpoint in run["checkpoints"]:
            n, student, teacher = checkpoint["with_context"]["all"]
            row = [run["world"], checkpoint["step"], number(checkpoint["student"])]
            row += [f"{number(student)} → {number(teacher)}", n]
            for kind in CLASSES:
                tokens, total, wrong = checkpoint["classes"][kind]
                mean, share = (total / tokens, wrong / tokens) if tokens else (0.0, 0.0)
                row.append(f"{number(_share(checkpoint, kind))} ({number(mean)}; wrong {number(share)})")
            rows.append(row)
    header = ["world", "step", "student", "with a teacher: student → teacher", "answers"]
    return table([*header, *(f"divergence, {kind}" for kind in CLASSES)], rows)


def _agree(runs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for run in runs.values():
        for checkpoint in run["checkpoints"]:
            cells = [agreement(checkpoint, what) for what in ("precision", "chance", "auc")]
            rows.append(
                [run["world"], checkpoint["step"], *("–" if cell is None else interval(cell) for cell in cells)]
            )
    return table(["world", "step", "agreement", "by chance", "AUC"], rows)


def _picture(runs: dict[str, dict[str, Any]]) -> Picture:
    rate_curves, share_bars, agree_curves = [], [], []
    for i, run in enumerate(runs.values()):
        steps = [c["step"] for c in run["checkpoints"]]
        student, teacher = ([c["with_context"]["all"][k] for c in run["checkpoints"]] for k in (1, 2))
        rate_curves.append(Curve("teacher" if i == 0 else "", list(zip(steps, teacher, strict=True)), GREEN))
        rate_curves.append(
            Curve("student" if i == 0 else "", list(zip(steps, student, strict=True)), BLUE, dashed=True)
        )
        for colour, what in ((GREEN, "precision"), ("#999999", "chance")):
            values = [(c["step"], agreement(c, what)) for c in run["checkpoints"]]
            points = [(step, estimate.value) for step, estimate in values if estimate is not None]
            title = {"precision": "teacher", "chance": "by chance"}[what]
            if points:
                agree_curves.append(Curve(title if i == 0 else "", points, colour, dashed=what == "chance"))
    first = next(iter(runs.values()))
    for checkpoint in first["checkpoints"]:
        for kind, colour in zip(CLASSES, FREE, strict=False):
            share = _share(checkpoint, kind)
            share_bars.append(Bar(f"step {checkpoint['step']}", share, colour, series=kind))
    panels = [
        Panel("pass rate where there is a teacher", "step", "pass rate", rate_curves),
        Panel(f"share of the divergence, world {first['world']}", "", "share", bars=share_bars),
        Panel("wrong tokens among those it wants changed", "step", "share", agree_curves),
    ]
    return Picture("teacher", TITLE, "One line per world in the first and third panel.", panels, 3)


def _examples(runs: dict[str, dict[str, Any]]) -> TokenPicture | None:
    """Failed answers, token by token, from the first checkpoint after step 0 that has any."""
    for run in runs.values():
        for checkpoint in run["checkpoints"][1:] + run["checkpoints"][:1]:
            if checkpoint["examples"]:
                caption = (
                    "Failed answers of the student, token by token. Redder: the teacher finds the token less likely "
                    "than the student does; bluer: likelier (log π − log q). Underlined: what a diff against the "
                    f"nearest correct program changes. World {run['world']}, step {checkpoint['step']}; the first "
                    "ones, not chosen by hand."
                )
                return TokenPicture("teacher_tokens", "Tokens", caption, checkpoint["examples"])
    return None
