"""What happened to every row on its way from a file to a problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdpo.errors import UserError


@dataclass(frozen=True)
class BadRowReport:
    """A row that could not be used."""

    file: str
    line: int  # counted from 1
    reason: str
    unit: str = "line"  # or "row", where rows are no lines

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}: {self.reason}"


@dataclass
class DataReport:
    """Counts and reasons; every row read is a bad one, outside the window, excluded, left out, or in the dataset."""

    files: tuple[str, ...] = ()
    rows: int = 0
    outside_window: int = 0
    bad_rows: list[BadRowReport] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)  # problem id → why the user's options exclude it
    left_out: dict[str, str] = field(default_factory=dict)  # problem id → why the splits cannot use it
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Sentences for the console, the important first; empty when every row became a problem."""
        said = [f"Bad row skipped: {bad}" for bad in self.bad_rows[:10]]
        if len(self.bad_rows) > 10:
            said.append(f"… and {len(self.bad_rows) - 10} more bad rows.")
        said += self.notes
        for what, ids in (("Excluded", self.excluded), ("Left out", self.left_out)):
            by_reason: dict[str, list[str]] = {}
            for problem, reason in ids.items():
                by_reason.setdefault(reason, []).append(problem)
            said += [f"{what} ({reason}): {_some(problems)}." for reason, problems in by_reason.items()]
        if self.outside_window:
            said.append(f"{self.outside_window} of {self.rows} rows lie outside the date window.")
        return said

    def check_bad_rows(self, limit: float, remedy: str, one_must_be_usable: bool = False) -> None:
        """Raises UserError for more bad rows than the share `limit` (`data.max_bad_rows`) of all.

        A single one is accepted, unless the limit is 0.  one_must_be_usable: refuse also where every row is bad,
        however few they are.  remedy: what the user can do.
        """
        bad, allowed = len(self.bad_rows), max(1 if limit else 0, int(limit * self.rows))
        if bad <= allowed and not (one_must_be_usable and 0 < bad == self.rows):
            return
        shown = "\n".join(f"  {row}" for row in self.bad_rows[:10])
        more = f"\n  … and {bad - 10} more" if bad > 10 else ""
        raise UserError(
            f"{bad} of {self.rows} rows cannot be used; {allowed} would be accepted (data.max_bad_rows={limit}).\n"
            f"{shown}{more}\nCorrect or remove these rows, or {remedy}."
        )

    def to_json(self) -> Mapping[str, object]:
        """The report as plain JSON values."""
        return {
            "files": list(self.files),
            "rows": self.rows,
            "outside_window": self.outside_window,
            "bad_rows": [{"file": b.file, "line": b.line, "reason": b.reason} for b in self.bad_rows],
            "excluded": dict(self.excluded),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }


def _some(names: list[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
