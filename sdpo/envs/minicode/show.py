"""Problems printed for a person."""

from __future__ import annotations

import random

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from sdpo.config.safe_console import SafeConsole
from sdpo.envs.code.lcb_rows import LCBRow
from sdpo.envs.minicode.family import LISTS, Family
from sdpo.envs.minicode.rows import world_rows
from sdpo.envs.minicode.world import make_world


def show_problems(n: int, seed: int = 0, family: Family = LISTS, console: Console | None = None) -> None:
    """Print `n` random problems of a world: statement, tests, library, and the reference program."""
    rows = list(world_rows(make_world(seed, family)))
    console = console or SafeConsole()
    for row in random.Random(f"show {seed}").sample(rows, min(n, len(rows))):
        console.print(_panel(row))


def _panel(row: LCBRow) -> Panel:
    tests = Table("tests", "input", "expected output", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for kind, cases in (("public", row.public_tests), ("private", row.private_tests)):
        for case in cases[:2]:
            tests.add_row(kind, case.input, case.output)
        if len(cases) > 2:
            tests.add_row("", f"… {len(cases) - 2} more", "", style="dim")
    parts: list[RenderableType] = [Text(row.content, style="bold")]
    if row.starter_code:
        parts.append(Syntax(row.starter_code, "python", background_color="default"))
    parts += [Text(), tests]
    for name, source in row.files.items():
        parts += [Text(f"\nhidden from the policy: {name}", style="dim"), _code(source)]
    parts += [Text("\nreference program", style="dim"), _code(row.solution or "")]
    split = "held out" if row.split == "heldout" else "training"
    title = f"{row.question_id} · {row.difficulty} · {row.metadata['kind']} · {split}"
    return Panel(Group(*parts), title=title, title_align="left")


def _code(source: str) -> Syntax:
    return Syntax(source.rstrip("\n"), "python", background_color="default")
