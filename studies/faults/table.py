"""The tables of docs/reliability.md, from the records of docs/results/faults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sdpo.config.paths import PROJECT
from studies.markdown_table import table

PAGE = PROJECT / "docs" / "reliability.md"
_MARK = re.compile(r"<!-- faults\.(\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def write_page(results: Path, page: Path = PAGE) -> None:
    """Put every record's table between its marks."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    page.write_text(
        _MARK.sub(lambda m: f"<!-- faults.{m[1]} -->\n{section(records.get(m[1]))}<!-- end -->", page.read_text())
    )


def section(record: dict[str, Any] | None) -> str:
    if record is None:
        return "\nNot made yet.\n\n"
    outcomes, differs = record["outcomes"], record["differences"]
    equal = f"**It differs: {'; '.join(differs[:3])}.**" if differs else (
        "At its end all tensors of the last checkpoint and all metrics without a clock in them were equal to those "
        "of the undisturbed run, bit for bit."
    )  # fmt: skip
    wrong = sum(bool(outcome["wrong"]) for outcome in outcomes)
    left = record["planned"] - len(outcomes)
    summary = f"One run of {record['steps']} steps was struck {len(outcomes)} times" + (
        f" ({left} more were planned). " if left else ". "
    )
    summary += f"{equal} {wrong or 'None'} of the strikes ended otherwise than promised."
    where = f"{record['hardware']}; commit {record['commit']}, {record['date']}; `{record['command']}`, "
    where += f"{record['minutes']:g} minutes."
    columns = ["part", "fault", "phase", "what happened", "noticed or ended after, s", "next step complete after, s",
               "steps made again"]  # fmt: skip
    rows = map(_cells, sorted(outcomes, key=_order))
    return "\n".join(["", summary, "", table(columns, rows), "", where, "", ""])


def _order(outcome: dict[str, Any]) -> tuple[str, str, str]:
    return outcome["strike"]["part"], outcome["strike"]["how"], outcome["strike"]["phase"]


def _cells(outcome: dict[str, Any]) -> list[str]:
    strike = outcome["strike"]
    status = outcome["status"]
    happened = "went on" if status is None else f"exit status {status}, resumed"
    happened += "".join(f"; **{what}**" for what in outcome["wrong"])
    return [
        strike["part"], strike["how"], strike["phase"], happened, _seconds(outcome["noticed_s"]),
        _seconds(outcome["again_s"]), str(outcome["lost"]),
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
