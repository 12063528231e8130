"""report.html: the page of a single run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sdpo.errors import UserError
from sdpo.report import tables
from sdpo.report.figures import run_figures
from sdpo.report.notes import unfinished
from sdpo.report.page import render
from sdpo.report.picks import RULE, picked
from sdpo.report.responses import Response, normalizes_by_std, step_responses
from sdpo.report.runs import Run, load_run
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.rollouts import read_rollouts, rollout_steps

_EXAMPLES = 2  # responses of each kind
_EXAMPLE_CHARACTERS = 1500
_EXAMPLE_TOKENS = 600
_FULL = 5.0  # |log q − log π| that gets the full colour


def run_report(path: Path) -> Path:
    """Write `<run folder>/report.html`, the page of a single run, and return it.

    Raises `UserError` if `path` is not a run folder, or nothing was recorded in it yet.
    """
    run = load_run(path)
    if not run.rows:
        raise UserError(f"{path} has recorded no step yet; there is nothing to show.")
    page = run.path / "report.html"
    settings = sorted(tables.flatten(run.recipe).items())
    html = render(
        "run.html.jinja",
        [run],
        run_figures(run),
        tables.score_tables([run]),
        title=run.name,
        warnings=unfinished([run]),
        settings=settings,
        credit=_credit(run),
        rule=RULE,
        colour=_colour,
        full=f"{_FULL:g}",
        examples=_examples(run),
    )
    atomic_write(page, html)
    return page


def _examples(run: Run) -> list[dict[str, Any]]:
    """Some responses of the first and the last recorded step, passed and not."""
    folder = run.path / "rollouts"
    steps = rollout_steps(folder)
    examples = []
    for step in dict.fromkeys(steps[:1] + steps[-1:]):
        rows = read_rollouts(folder, step)
        passed = [row for row in rows if row["passed"]][:_EXAMPLES]
        failed = [row for row in rows if not row["passed"]][:_EXAMPLES]
        for row in passed + failed:
            texts = {key: _cut(row[key] or "") for key in ("prompt", "response", "feedback")}
            examples.append({"step": step, "verdict": row["verdict"], "passed": row["passed"], **texts})
    return examples


def _credit(run: Run) -> list[dict[str, Any]]:
    """Three responses with the colours of their tokens (`picked`)."""
    steps, by_std = rollout_steps(run.path / "rollouts"), normalizes_by_std(run.recipe)
    some = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
    return [_coloured(r) for r in picked(r for step in some for r in step_responses(run.path, step, by_std))]


def _coloured(response: Response) -> dict[str, Any]:
    assert response.tokens is not None and response.tokens.gains is not None
    texts, gains = response.tokens.texts[:_EXAMPLE_TOKENS], response.tokens.gains
    return {
        "step": response.step,
        "task": response.task,
        "sample": response.row["sample"],
        "solved": response.outcome == "solved",
        "verdict": response.row["verdict"] or response.outcome,
        "feedback": _cut(response.row["feedback"] or ""),
        "advantage": "none" if response.advantage is None else f"{response.advantage:+.3f}",
        "mean": float(gains.mean()),
        "largest": float(gains[abs(gains).argmax()]),
        "tokens": [(text, float(g), _colour(float(g))) for text, g in zip(texts, gains, strict=False)],
    }


def _colour(gain: float) -> str:
    """As on the page of `sdpo inspect`: told apart with every common kind of colour blindness."""
    strength = min(1.0, math.sqrt(abs(gain) / _FULL)) if math.isfinite(gain) else 0.0
    return f"rgb({'86 180 233' if gain > 0 else '230 159 0'} / {strength:.3f})"


def _cut(text: str) -> str:
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[:_EXAMPLE_CHARACTERS] + "\n… (cut)"
