"""`python -m studies pretrain`: train, measure, write the card, put the folder in place.

Overrides are the fields of `PretrainSettings` (`seed=1`, `steps=3000`, …) and

* `out`: where the finished policy goes (default policies/<world>);
* `measure`: a policy folder to measure instead of training; nothing is written unless `out` is given.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sdpo.envs.minicode.family import LISTS, TEXTS
from sdpo.errors import UserError
from studies.pretrain.card import skill_tables, write_card
from studies.pretrain.skills import measure_skills
from studies.pretrain.tool_skills import measure_tool_skills
from studies.pretrain.tools_card import tool_table, write_tool_card
from studies.pretrain.train import PretrainSettings, train

PROJECT = Path(__file__).resolve().parents[2]
LOG_EVERY = 250


def main(overrides: Sequence[str] = ()) -> int:
    """Returns the exit status; raises UserError for an unknown option or a value of the wrong type."""
    settings, options = parse(overrides)
    console = Console()
    measured = options.get("measure")
    if measured is not None:
        write = _measured(Path(measured), console)
        if "out" in options:
            write(Path(options["out"]))
        return 0
    out = Path(options.get("out", PROJECT / "policies" / settings.world))
    work = PROJECT / "build" / f"policy-{settings.world}-seed{settings.seed}-layers{settings.layers}"
    origin = {"command": " ".join(["python -m studies pretrain", *changed_settings(overrides)]), "commit": _commit()}
    shutil.rmtree(work, ignore_errors=True)
    with _bar("loss {task.fields[loss]}", console) as bar:
        task = bar.add_task("pre-training", total=settings.steps, loss="")
        average: dict[str, float] = {}

        def report(step: int, losses: dict[str, float]) -> None:
            for mode, loss in losses.items():
                average[mode] = 0.95 * average.get(mode, loss) + 0.05 * loss
            shown = ", ".join(f"{mode} {loss:.2f}" for mode, loss in sorted(average.items()))
            bar.update(task, completed=step, loss=shown)
            if step % LOG_EVERY == 0 and not console.is_terminal:  # a bar in a log file shows only when it is over
                console.print(f"step {step} of {settings.steps}: loss {shown}")

        try:
            train(settings, work, report)
        except KeyboardInterrupt:
            console.print(f"Stopped. The last checkpoint is {work / 'checkpoint'}; {out} is as it was.")
            return 130
    record = json.loads((work / "pretraining.json").read_text()) | origin
    (work / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
    _measured(work, console)(work)
    _put_in_place(work, out)
    console.print(f"The policy is in {out}.")
    return 0


def parse(overrides: Sequence[str]) -> tuple[PretrainSettings, dict[str, str]]:
    """(settings, other options) from `key=value` words."""
    known = {field.name: field for field in fields(PretrainSettings)}
    values: dict[str, object] = {}
    options: dict[str, str] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or key not in {*known, "out", "measure"}:
            keys = ", ".join((*known, "out", "measure"))
            raise UserError(f"{word!r} is not an option of pretrain. Give key=value with one of the keys {keys}.")
        if key in ("out", "measure"):
            options[key] = text
            continue
        try:
            kind = type(known[key].default)
            given = text if kind is str else json.loads(text)
            values[key] = kind(given)
            if kind is int and (isinstance(given, bool) or values[key] != given):
                raise ValueError("no whole number")
        except (ValueError, TypeError):
            raise UserError(f"{key}={text!r}: give a value like {known[key].default!r}.") from None
    try:
        return PretrainSettings(**values), options
    except ValueError as error:
        raise UserError(str(error)) from None


def _bar(text: str, console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn(text), console=console)


def _measured(folder: Path, console: Console) -> Callable[[Path], None]:
    """Measures the policy of a folder on its world, prints the tables, and returns what writes its card."""
    with _bar("", console) as bar:
        tasks: dict[str, int] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        if _world_of(folder) == "minitools":
            answered = measure_tool_skills(folder, progress=progress)
            console.print(tool_table(answered))
            return lambda out: write_tool_card(out, answered)
        lists, texts = (measure_skills(folder, family=family, progress=progress) for family in (LISTS, TEXTS))
    for table in [*skill_tables(lists), *skill_tables(texts)[:1]]:
        console.print(table)
    return lambda out: write_card(out, lists, texts)


def _world_of(folder: Path) -> str:
    """The world that a policy was made for."""
    record = folder / "pretraining.json"
    settings = json.loads(record.read_text())["settings"] if record.is_file() else {}
    return str(settings.get("world", PretrainSettings.world))


def changed_settings(overrides: Sequence[str]) -> list[str]:
    """The overrides that change the policy, not where it goes."""
    return [word for word in overrides if word.partition("=")[0] not in ("out", "measure")]


def _commit() -> str:
    """The commit that is checked out; marked where the code that decides about the policy differs from it."""
    decisive = ("studies/pretrain", "sdpo/envs", "sdpo/prompts/templates.py")
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--", *decisive], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + (" with local changes" if changes.strip() else "")


def _put_in_place(work: Path, out: Path) -> None:
    shutil.rmtree(work / "checkpoint", ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    shutil.move(str(work), str(out))
    shutil.rmtree(old, ignore_errors=True)
