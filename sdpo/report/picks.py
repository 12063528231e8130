"""Three responses that show what a run's credit looks like, by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdpo.report.responses import Response

RULE = (
    "the failed response with the largest |log q − log π| of one token; the solved one with the largest; and, of all, "
    "the one whose largest is the median"
)


def picked(responses: Iterable[Response]) -> list[Response]:
    """Up to three, each once (`RULE`), among the responses that a teacher re-scored and whose tokens are recorded."""
    ranked = sorted(
        (r for r in responses if r.tokens is not None and r.tokens.disagreement is not None), key=_disagreement
    )
    chosen = [_last(ranked, "failed"), _last(ranked, "solved"), ranked[len(ranked) // 2] if ranked else None]
    return list({id(r): r for r in chosen if r is not None}.values())


def _disagreement(response: Response) -> float:
    assert response.tokens is not None and response.tokens.disagreement is not None
    return response.tokens.disagreement


def _last(ranked: Sequence[Response], outcome: str) -> Response | None:
    return next((r for r in reversed(ranked) if r.outcome == outcome), None)
