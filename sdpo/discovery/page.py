"""The page of a discovery: curves, what each method took on each question, the solutions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sdpo.discovery import sampling
from sdpo.discovery.estimate import LEVEL, Curve, grid, of_samples, of_searches
from sdpo.discovery.record import DiscoveryFolder, Search
from sdpo.report import svg
from sdpo.report.drawing import draw
from sdpo.report.figures import Figure, Line, Panel, display
from sdpo.report.page import template
from sdpo.tracking import provenance
from sdpo.tracking.disk import atomic_write
from sdpo.tracking.run_info import now

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the questions


@dataclass(frozen=True)
class Row:
    """One question: its hardness, and the attempts of each method until its first success (None: none)."""

    question: str
    hardness: str
    attempts: dict[str, float | None]
    slower: bool  # the first method than independent samples


@dataclass(frozen=True)
class Found:
    """What a discovery comes to; methods in the order of the recipe, then best-of-k and multi-turn."""

    methods: list[str]
    budget: int
    curves: dict[str, Curve]
    rows: list[Row]
    shares: list[tuple[float, dict[str, int | None]]]
    sentence: str


def found(folder: DiscoveryFolder, algorithms: Sequence[str], budget: int) -> Found:
    """Raises KeyError where a method has not searched anything yet."""
    hardness = {q: h for q, h in (folder.hardness or {}).items() if h.chosen}
    by_method: dict[str, dict[str, list[Search]]] = {}
    for search in folder.searches:
        by_method.setdefault(search.method, {}).setdefault(search.question, []).append(search)
    methods, ks = [*algorithms, sampling.BEST_OF_K, sampling.MULTI_TURN], grid(budget)
    curves = {method: _curve(method, by_method[method], ks) for method in methods}
    rows = []
    for question, each in hardness.items():
        attempts = {m: _attempts(m, by_method[m].get(question, [])) for m in methods}
        own, samples = attempts[methods[0]], attempts[sampling.BEST_OF_K]
        slower = samples is not None and (own is None or own > samples)
        rows.append(Row(question, f"{each.solved} of {each.samples}", attempts, slower))
    shares = [(share, {m: curve.attempts_to(share) for m, curve in curves.items()}) for share in SHARES]
    return Found(methods, budget, curves, rows, shares, _sentence(methods, curves, rows, budget))


def _curve(method: str, searches: Mapping[str, Sequence[Search]], ks: np.ndarray) -> Curve:
    if method == sampling.BEST_OF_K:
        return of_samples({q: (own[0].attempts, own[0].solved) for q, own in searches.items()}, ks)
    return of_searches({q: [(s.attempts, s.solved > 0) for s in own] for q, own in searches.items()}, ks)


def _attempts(method: str, own: Sequence[Search]) -> float | None:
    """Until the first success: of independent samples the expectation, (n + 1) / (c + 1); else the median of the seeds.

    None: no success within the budget, for half of the seeds or more.
    """
    if method == sampling.BEST_OF_K:
        return (own[0].attempts + 1) / (own[0].solved + 1) if own and own[0].solved else None
    each = sorted(s.attempts if s.solved else float("inf") for s in own)
    middle = each[len(each) // 2] if each else float("inf")
    return None if middle == float("inf") else middle


def _sentence(methods: Sequence[str], curves: Mapping[str, Curve], rows: Sequence[Row], budget: int) -> str:
    first, samples = curves[methods[0]], curves[sampling.BEST_OF_K]
    ends = ", ".join(f"{display(m)} {c.value[-1]:.2f} [{c.low[-1]:.2f}, {c.high[-1]:.2f}]" for m, c in curves.items())
    slower = sum(row.slower for row in rows)
    text = f"Of {len(rows)} questions, within {budget:,} attempts each: {ends}. "
    share = min(first.value[-1], samples.value[-1]) / 2
    own, theirs = (curve.attempts_to(share) if share else None for curve in (first, samples))
    if own and theirs:
        text += (
            f"Half of what both discover takes {display(methods[0])} {own:,} attempts and best-of-k {theirs:,} "
            f"({theirs / own:.1f} times as many). "
        )
    return text + f"On {slower} of {len(rows)} questions {display(methods[0])} was slower than independent samples."


def write_page(path: Path, folder: DiscoveryFolder, result: Found, name: str) -> Path:
    """index.html, discovery.png and data.json in the folder."""
    lines = [
        Line(method, None, list(zip(c.ks.tolist(), c.value.tolist(), strict=True)), c.low.tolist(), c.high.tolist())
        for method, c in result.curves.items()
    ]
    panel = Panel("discovery@k", "attempts, k", "discovery@k", lines, (0.0, 1.0))
    caption = (
        f"Share of the questions that are solved within k attempts. Bands: {LEVEL:.0%} bootstrap intervals over "
        "questions. A batch counts whole; best-of-k is 1 − C(n−c, k) / C(n, k) of independent samples."
    )
    figure = Figure("discovery", "discovery@k", caption, [panel], columns=1)
    footer = f"Hardware: {provenance.hardware()}. Commit: {provenance.commit()}. Command: {provenance.command()}"
    atomic_write(path / "discovery.png", draw(figure, footer))
    content = {
        "methods": result.methods,
        "budget": result.budget,
        "sentence": result.sentence,
        "curves": {m: {k: v.tolist() for k, v in vars(c).items()} for m, c in result.curves.items()},
        "questions": [asdict(row) for row in result.rows],
        "attempts_to_share": [{"share": share, **each} for share, each in result.shares],
    }
    atomic_write(path / "data.json", json.dumps(content, indent=1, ensure_ascii=False).encode())
    text = template("discovery.html.jinja").render(
        title=f"Discovery: {name}",
        result=result,
        figures=[(figure, svg.legend(figure), svg.panels(figure))],
        solutions=[search for search in folder.searches if search.solution is not None],
        provenance=footer,
        made=now()[:16].replace("T", " "),
        made_by=provenance.command(),
    )
    atomic_write(path / "index.html", text.encode(errors="backslashreplace"))
    return path / "index.html"
