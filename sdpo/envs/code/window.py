"""Contest-date windows, half-open: [start, end)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from sdpo.errors import UserError


@dataclass(frozen=True)
class DateWindow:
    """Contest dates from `start` (included) to `end` (not included); None leaves a side open."""

    start: date | None = None
    end: date | None = None

    def __post_init__(self) -> None:
        if self.start and self.end and self.start >= self.end:
            raise UserError(
                f"The date window {self} holds no day: its start has to lie before its end, which is not included."
            )

    def __contains__(self, moment: datetime) -> bool:
        day = moment.date()
        return (self.start is None or day >= self.start) and (self.end is None or day < self.end)

    def __str__(self) -> str:
        return f"[{self.start or '…'}, {self.end or '…'})"


def contest_moment(text: str) -> datetime:
    """An ISO 8601 date or time as a naive datetime (UTC where an offset is given).  ValueError if it is neither."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


# What arXiv 2601.20802 calls LiveCodeBench v6: 131 questions of February to April 2025.
V6_WINDOW = DateWindow(date(2025, 2, 1), date(2025, 5, 1))
V6_QUESTIONS = 131
